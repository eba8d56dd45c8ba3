"""Records of feedback quality, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.feedback.quality.agreement import AnnotatorAgreement
from rlhf_lightning.feedback.quality.bias import Bias, Contradictions
from rlhf_lightning.feedback.quality.reliability import AnnotatorReliability


@dataclass(frozen=True)
class Suspect:
    """A judgement that is probably wrong: its origin, kind, annotator, probability and evidence."""

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
        scored: number of judgements with a score.
        suspects: number of suspects by route ("others", "text", "both").
        text_accuracy: accuracy of the text model by kind.
        examples: those with the highest scores, at most 50.
    """

    scored: int
    suspects: dict[str, int]
    text_accuracy: dict[str, float]
    examples: list[Suspect]


@dataclass(frozen=True)
class DataSetQuality:
    """The quality of one data set, or of all together.

    Attributes:
        name: the data set's; "all" for all.
        judgements, kinds: number of judgements, and of each kind.
        measured: number of measured judgements: all, or a sample by prompt.
        named: number of these with an annotator's name.
        agreement: Krippendorff's alpha of units judged by several annotators, without questions that feedback_selection chose.
        annotators: sorted by name; for all data sets, annotators with one name are one person.
    """

    name: str
    judgements: int
    kinds: dict[str, int]
    measured: int
    named: int
    agreement: list[AnnotatorAgreement]
    annotators: list[AnnotatorReliability]
    bias: Bias
    contradictions: Contradictions
    noise: NoiseSummary
