"""Quality of feedback: agreement, reliability, label noise and biases, by data set and overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_lightning.feedback.judgements import is_uniform
from rlhf_lightning.feedback.quality.agreement import AnnotatorAgreement, agreement
from rlhf_lightning.feedback.quality.bias import CHARACTERS_PER_SECOND, Bias, Contradictions, Share, bias, contradictions
from rlhf_lightning.feedback.quality.label_noise import TEXT_CAP, label_noise
from rlhf_lightning.feedback.quality.reliability import CAP, AnnotatorReliability, annotator_reliability
from rlhf_lightning.feedback.quality.votes import data_set, sample_by_prompt, tables_of
from rlhf_lightning.flow import Feedback


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


ENOUGH_OVERLAP = 50
UNRELIABLE = 0.25
TOO_FAST = 0.1


def summary_lines(quality: DataSetQuality) -> list[str]:
    """Summarise agreement, annotators, wrong judgements, biases and haste, in this order."""
    return [*_agreement(quality), *_annotators(quality), *_noise(quality), *_biases(quality)]


def _agreement(quality: DataSetQuality) -> list[str]:
    lines = []
    for result in quality.agreement:
        if result.alpha is not None:
            units = f"{result.kind}s of {result.aspect}" if result.aspect else {"thumbs": "thumbs"}.get(result.kind, f"{result.kind}s")
            interval = f" (95 %: {result.low:.2f} to {result.high:.2f})" if result.low is not None else ""
            word = "good" if result.alpha >= 0.8 else "fair" if result.alpha >= 0.667 else "weak" if result.alpha >= 0.2 else "hardly any"
            alpha = f"Krippendorff's alpha {result.alpha:.2f}{interval}"
            lines.append(f"{word} agreement on {units}: {alpha}, {result.units:,} units judged by several")
    if not quality.agreement:
        lines.append("nothing was judged by two named annotators: neither agreement nor reliability can be measured")
    return lines


def _annotators(quality: DataSetQuality) -> list[str]:
    measured = [person for person in quality.annotators if person.combined is not None and person.overlap >= ENOUGH_OVERLAP]
    poor = [person for person in measured if person.combined is not None and person.combined < UNRELIABLE]
    lines = []
    if poor:
        names = ", ".join(f"{person.name} ({person.combined:.2f})" for person in sorted(poor, key=lambda p: p.combined or 0.0)[:5])
        more = f" and {len(poor) - 5} more" if len(poor) > 5 else ""
        lines.append(f"{len(poor)} of {len(measured)} annotators with enough overlap are hardly better than chance: {names}{more}")
    uncertain = sum(person.combined is not None for person in quality.annotators) - len(measured)
    if uncertain:
        lines.append(
            f"the reliability of {uncertain} annotators is uncertain: fewer than {ENOUGH_OVERLAP} of their judgements overlap with others'"
        )
    return lines


def _noise(quality: DataSetQuality) -> list[str]:
    count = sum(quality.noise.suspects.values())
    if not count:
        return []
    share = 100 * count / quality.noise.scored
    return [f"{count:,} judgements are probably wrong, {share:.1f} % of the {quality.noise.scored:,} that could be checked"]


def _biases(quality: DataSetQuality) -> list[str]:
    bias, pairs = quality.bias, quality.contradictions
    lines = _leaning("the response shown first", bias.first_wins) + _leaning("the longer response", bias.longer_wins)
    for rating in bias.length_ratings:
        if abs(rating.correlation) >= 0.3 and (rating.low > 0 or rating.high < 0):
            subject = f"ratings of {rating.aspect}" if rating.aspect else "ratings"
            lines.append(f"{subject} {'rise' if rating.correlation > 0 else 'fall'} with length (Spearman {rating.correlation:.2f})")
    if bias.time and bias.time.too_fast >= TOO_FAST:
        lines.append(f"{100 * bias.time.too_fast:.0f} % of the judgements were made faster than the texts can be read")
    if pairs.within:
        lines.append(f"{pairs.within:,} of {pairs.repeated:,} pairs that an annotator judged again were judged the other way")
    if pairs.between:
        lines.append(f"{pairs.between:,} of {pairs.shared:,} pairs that several annotators compared were judged both ways")
    return lines


def _leaning(subject: str, share: Share | None) -> list[str]:
    """Report a share whose interval excludes one half, if it differs by at least 0.03."""
    if share is None or share.low <= 0.5 <= share.high or abs(share.share - 0.5) < 0.03:
        return []
    verb = "wins" if share.share > 0.5 else "wins only"
    return [f"{subject} {verb} {100 * share.share:.0f} % of comparisons (95 %: {100 * share.low:.0f} to {100 * share.high:.0f} %)"]


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
    noise = label_noise(records, tables, text_cap=text_cap)
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
        agreement=agreement(tables if len(uniform) in (0, len(records)) else tables_of(uniform)),
        annotators=annotator_reliability(records, tables),
        bias=bias(records, characters_per_second=characters_per_second),
        contradictions=contradictions(tables.pairs, len(tables.annotators)),
        noise=NoiseSummary(
            scored=sum(item is not None for item in noise.judgements),
            suspects=dict(Counter(item.route for _, item in suspect)),
            text_accuracy=noise.text_accuracy,
            examples=examples,
        ),
    )
