"""What is measured of the quality of some feedback, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.feedback.quality.agreement import Agreement
from rlhf_lightning.feedback.quality.bias import Bias, Contradictions
from rlhf_lightning.feedback.quality.reliability import AnnotatorReliability


@dataclass(frozen=True)
class Suspect:
    """A judgement that is probably wrong: where it was read, its kind and annotator, the probability, and what says so."""

    origin: str | None
    data_set: str
    kind: str
    annotator: str | None
    score: float
    route: str


@dataclass(frozen=True)
class NoiseSummary:
    """Label noise of some feedback.

    Attributes:
        scored: how many judgements have a score at all.
        suspects: how many are suspect, by route ("others", "text", "both").
        text_accuracy: how often words alone agree with what was said, by kind.
        examples: the surest, at most 50.
    """

    scored: int
    suspects: dict[str, int]
    text_accuracy: dict[str, float]
    examples: list[Suspect]


@dataclass(frozen=True)
class DataSetQuality:
    """What `measure_quality` finds in one data set, or in all together.

    Attributes:
        name: the data set's; "all" for everything.
        judgements, kinds: how many there are, and of each kind.
        measured: how many of them were looked at: all, or a sample by prompt.
        named: how many of these have an annotator's name.
        agreement: Krippendorff's alpha where several judged the same.
        annotators: by name; for all together an annotator is who has that name in any data set.
    """

    name: str
    judgements: int
    kinds: dict[str, int]
    measured: int
    named: int
    agreement: list[Agreement]
    annotators: list[AnnotatorReliability]
    bias: Bias
    contradictions: Contradictions
    noise: NoiseSummary
