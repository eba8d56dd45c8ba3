"""Quality of feedback: agreement, reliability, label noise and biases, by data set and overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_lightning.feedback.judgements import is_uniform
from rlhf_lightning.feedback.quality.agreement import agreement_of
from rlhf_lightning.feedback.quality.bias import CHARACTERS_PER_SECOND, bias, contradictions
from rlhf_lightning.feedback.quality.label_noise import TEXT_CAP, label_noise_of
from rlhf_lightning.feedback.quality.record import DataSetQuality, NoiseSummary, Suspect
from rlhf_lightning.feedback.quality.reliability import CAP, reliability_of
from rlhf_lightning.feedback.quality.sample import sample_by_prompt
from rlhf_lightning.feedback.quality.summary import summary_lines
from rlhf_lightning.feedback.quality.votes import data_set, tables_of
from rlhf_lightning.flow import Feedback

MAX_EXAMPLES = 50


@dataclass(frozen=True)
class Quality:
    """The quality of feedback as plain values; `dataclasses.asdict` gives JSON.

    Attributes:
        overall: of all feedback; with one data set the same as its.
        data_sets: by name.
        cap: beyond this number of comparisons a sample by prompt was measured.
    """

    overall: DataSetQuality
    data_sets: dict[str, DataSetQuality]
    cap: int

    def lines(self) -> list[str]:
        """Summarise the quality in a few sentences."""
        parts = list(self.data_sets.values()) if self.data_sets else [self.overall]
        lines = [f"{part.name}: {line}" if len(parts) > 1 else line for part in parts for line in summary_lines(part)]
        if self.overall.measured < self.overall.judgements:
            lines.insert(0, f"quality was measured on {self.overall.measured:,} of {self.overall.judgements:,} judgements, drawn by prompt")
        return lines


def measure_quality(
    feedback: Sequence[Feedback],
    *,
    cap: int = CAP,
    text_cap: int = TEXT_CAP,
    characters_per_second: float = CHARACTERS_PER_SECOND,
) -> Quality:
    """Measure agreement, reliability, label noise and biases.

    A data set is a record's source, else the file that it was read from. Annotators of one name in several data sets are one
    person in `overall`, and separate in `data_sets`.

    Args:
        cap: approximate maximum of comparisons (a ranking of K has K (K - 1) / 2, every other judgement counts as 1) to measure.
        text_cap: as in `label_noise`. characters_per_second: as in `bias`.
    """
    sample = sample_by_prompt(feedback, cap)
    parts: dict[str, list[Feedback]] = {name: [] for name in sample.judgements}
    for record in sample.records:
        parts[data_set(record)].append(record)
    total = sum(sample.judgements.values(), Counter[str]())

    def measure(name: str, records: Sequence[Feedback], kinds: Mapping[str, int]) -> DataSetQuality:
        return _measure(name, records, kinds, text_cap, characters_per_second)

    data_sets = {name: measure(name, parts[name], sample.judgements[name]) for name in sorted(parts)}
    overall = next(iter(data_sets.values())) if len(data_sets) == 1 else measure("all", sample.records, total)
    return Quality(overall, data_sets, cap)


def _measure(
    name: str, records: Sequence[Feedback], kinds: Mapping[str, int], text_cap: int, characters_per_second: float
) -> DataSetQuality:
    tables = tables_of(records)
    uniform = [record for record in records if is_uniform(record)]
    noise = label_noise_of(records, tables, text_cap)
    suspect = [(record, item) for record, item in zip(records, noise.judgements, strict=True) if item and item.suspect]
    suspect.sort(key=lambda pair: -pair[1].score)
    examples = [
        Suspect(record.origin, data_set(record), record.judgement.kind, record.annotator, item.score, item.route)
        for record, item in suspect[:MAX_EXAMPLES]
    ]
    return DataSetQuality(
        name=name,
        judgements=sum(kinds.values()),
        kinds=dict(kinds),
        measured=len(records),
        named=sum(record.annotator is not None for record in records),
        agreement=agreement_of(tables if len(uniform) in (0, len(records)) else tables_of(uniform)),
        annotators=reliability_of(records, tables),
        bias=bias(records, characters_per_second=characters_per_second),
        contradictions=contradictions(tables.pairs, len(tables.annotators)),
        noise=NoiseSummary(
            scored=sum(item is not None for item in noise.judgements),
            suspects=dict(Counter(item.route for _, item in suspect)),
            text_accuracy=noise.text_accuracy,
            examples=examples,
        ),
    )
