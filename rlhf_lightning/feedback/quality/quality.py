"""The quality of some feedback: agreement, reliability, label noise and biases, for each data set and for all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_lightning.feedback.quality.agreement import agreement_of
from rlhf_lightning.feedback.quality.bias import CHARACTERS_PER_SECOND, bias, contradictions
from rlhf_lightning.feedback.quality.label_noise import TEXT_CAP, label_noise_of
from rlhf_lightning.feedback.quality.record import DataSetQuality, NoiseSummary, Suspect
from rlhf_lightning.feedback.quality.reliability import CAP, reliability_of
from rlhf_lightning.feedback.quality.sample import sampled
from rlhf_lightning.feedback.quality.summary import findings
from rlhf_lightning.feedback.quality.votes import data_set, tables_of
from rlhf_lightning.flow import Feedback

SHOWN = 50


@dataclass(frozen=True)
class Quality:
    """The quality of feedback as plain values, `dataclasses.asdict` of which is JSON.

    Attributes:
        overall: of everything together; with one data set the same as its.
        data_sets: of each, by name.
        cap: beyond so many comparisons a sample by prompt was measured.
    """

    overall: DataSetQuality
    data_sets: dict[str, DataSetQuality]
    cap: int

    def lines(self) -> list[str]:
        """What a user should know, in a few sentences."""
        parts = list(self.data_sets.values()) if self.data_sets else [self.overall]
        told = [f"{part.name}: {line}" if len(parts) > 1 else line for part in parts for line in findings(part)]
        if self.overall.measured < self.overall.judgements:
            told.insert(0, f"quality was measured on {self.overall.measured:,} of {self.overall.judgements:,} judgements, drawn by prompt")
        return told


def measure_quality(
    feedback: Sequence[Feedback],
    *,
    cap: int = CAP,
    text_cap: int = TEXT_CAP,
    characters_per_second: float = CHARACTERS_PER_SECOND,
) -> Quality:
    """Everything that the feedback says about itself.

    A data set is a record's source, else the file that it was read from. Annotators of one name in several data sets are taken for one
    person in `overall`, and apart in `data_sets`.

    Args:
        cap: at most about so many comparisons (a ranking of K has K (K - 1) / 2, every other judgement counts as 1) are measured.
        text_cap: as in `label_noise`. characters_per_second: as in `bias`.
    """
    sample = sampled(feedback, cap)
    parts: dict[str, list[Feedback]] = {name: [] for name in sample.judgements}
    for record in sample.records:
        parts[data_set(record)].append(record)
    total = sum(sample.judgements.values(), Counter[str]())

    def measured(name: str, records: Sequence[Feedback], kinds: Mapping[str, int]) -> DataSetQuality:
        return _measured(name, records, kinds, text_cap, characters_per_second)

    data_sets = {name: measured(name, parts[name], sample.judgements[name]) for name in sorted(parts)}
    overall = next(iter(data_sets.values())) if len(data_sets) == 1 else measured("all", sample.records, total)
    return Quality(overall, data_sets, cap)


def _measured(
    name: str, records: Sequence[Feedback], kinds: Mapping[str, int], text_cap: int, characters_per_second: float
) -> DataSetQuality:
    tables = tables_of(records)
    noise = label_noise_of(records, tables, text_cap)
    suspect = [(record, found) for record, found in zip(records, noise.judgements, strict=True) if found and found.suspect]
    suspect.sort(key=lambda item: -item[1].score)
    examples = [
        Suspect(record.origin, data_set(record), record.judgement.kind, record.annotator, found.score, found.route)
        for record, found in suspect[:SHOWN]
    ]
    return DataSetQuality(
        name=name,
        judgements=sum(kinds.values()),
        kinds=dict(kinds),
        measured=len(records),
        named=sum(record.annotator is not None for record in records),
        agreement=agreement_of(tables),
        annotators=reliability_of(records, tables),
        bias=bias(records, characters_per_second=characters_per_second),
        contradictions=contradictions(tables.pairs, len(tables.annotators)),
        noise=NoiseSummary(
            scored=sum(found is not None for found in noise.judgements),
            suspects=dict(Counter(found.route for _, found in suspect)),
            text_accuracy=noise.text_accuracy,
            examples=examples,
        ),
    )
