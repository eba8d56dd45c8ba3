"""From the measured quality of feedback to what the report shows."""

from __future__ import annotations

from pathlib import Path

from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.feedback.quality.bias import Share
from rlhf_lightning.feedback.quality.quality import Quality
from rlhf_lightning.feedback.quality.record import DataSetQuality
from rlhf_lightning.feedback.quality.reliability import AnnotatorReliability
from rlhf_lightning.report.report import Curve, Level, Metric, Series, Table
from rlhf_lightning.statistics.intervals import Interval

Cells = list[str | float | None]
MOST_SHOWN = 200
"""Annotators listed on the page; quality.json has all."""


def quality_metrics(quality: Quality) -> list[Metric]:
    """What stands on top: agreement, the reliability of the annotators, and the share of judgements that are probably wrong."""
    all_of_it = quality.overall
    metrics = []
    for one in sorted(all_of_it.agreement, key=lambda one: -one.judgements)[:3]:
        if one.alpha is not None:
            bounds = Interval(one.alpha, one.low, one.high, one.units) if one.low is not None and one.high is not None else one.alpha
            name = f"Agreement on {_kind(one.kind, one.aspect)}"
            metrics.append(Metric(label=name, after=bounds, digits=2, better=None, note=f"Krippendorff's alpha, {_short(one.data_set)}"))
    known = [person for person in all_of_it.annotators if person.combined is not None]
    if known:
        overlap = sum(person.overlap for person in known)
        mean = sum(person.overlap * (person.combined or 0.0) for person in known) / overlap
        metrics.append(Metric(label="Reliability of an annotator", after=mean, digits=2, better=None, note="0 a coin, 1 always right"))
    if all_of_it.noise.scored:
        share = sum(all_of_it.noise.suspects.values()) / all_of_it.noise.scored
        note = f"of {all_of_it.noise.scored:,} that could be checked"
        metrics.append(Metric(label="Judgements that are probably wrong", after=share, unit="%", better=None, note=note))
    for label, found in (("Won by the longer response", all_of_it.bias.longer_wins), ("Won by the first shown", all_of_it.bias.first_wins)):
        if found is not None:
            metrics.append(Metric(label=label, after=_interval(found), unit="%", better=None, note="50 % says no bias", headline=False))
    return metrics


def quality_curves(quality: Quality) -> list[Curve]:
    """The annotators by reliability, best first, where there are enough of them to be a line."""
    known = sorted((person.combined for person in quality.overall.annotators if person.combined is not None), reverse=True)
    if len(known) < 3:
        return []
    places = [float(place) for place in range(1, len(known) + 1)]
    note = "0 says no more than a coin, 1 is always right."
    line = Series("reliability", places, known)
    return [Curve("Reliability of the annotators", "annotator, best first", "", [line], levels=[Level("a coin", 0.0)], note=note)]


def quality_tables(quality: Quality) -> list[Table]:
    """Agreement, biases, annotators and suspicious judgements."""
    parts = list(quality.data_sets.values())
    return [table for table in (_agreement(parts), _biases(parts), _annotators(quality.overall), _suspects(quality.overall)) if table.rows]


def cleaning_table(intake: Intake) -> Table:
    """What each filter took out and changed, and where."""
    rows: list[Cells] = []
    for name, done in intake.cleaning.items():
        for what, counts in (("removed", done.removed), ("changed", done.changed)):
            rows += [
                [name, what, reason, count, ", ".join(map(_short, done.examples.get(reason, [])))]
                for reason, count in sorted(counts.items())
            ]
    heads = ["filter", "what", "why", "records", "for example"]
    return Table(title="What cleaning did", heads=heads, rows=rows, part="Cleaning", in_terminal=False)


def _agreement(parts: list[DataSetQuality]) -> Table:
    rows: list[Cells] = [
        [_short(one.data_set), _kind(one.kind, one.aspect), one.alpha, one.low, one.high, one.units, one.judgements, one.annotators]
        for part in parts
        for one in part.agreement
    ]
    heads = ["data set", "judgements of", "alpha", "from", "to", "units", "judgements", "annotators"]
    note = "Krippendorff's alpha with its 95 % interval: 1 is perfect agreement, 0 chance. A unit was judged by several."
    return Table(title="How far annotators agree", heads=heads, rows=rows, part="Agreement", note=note)


def _biases(parts: list[DataSetQuality]) -> Table:
    rows: list[Cells] = []
    for part in parts:
        for what, share in (("the response shown first wins", part.bias.first_wins), ("the longer response wins", part.bias.longer_wins)):
            if share is not None:
                rows.append([_short(part.name), what, share.share, share.low, share.high, share.n])
        for one in part.bias.length_ratings:
            what = f"Spearman of length with {_kind('rating', one.aspect)}"
            rows.append([_short(part.name), what, one.correlation, one.low, one.high, one.n])
        if part.bias.time is not None:
            rows.append(
                [_short(part.name), "judged faster than the texts can be read", part.bias.time.too_fast, None, None, part.bias.time.n]
            )
        pairs = part.contradictions
        for what, odd, all_of_them in (
            ("an annotator contradicts itself", pairs.within, pairs.repeated),
            ("annotators contradict each other", pairs.between, pairs.shared),
        ):
            if all_of_them:
                rows.append([_short(part.name), what, odd / all_of_them, None, None, all_of_them])
    heads = ["data set", "what", "share", "from", "to", "of"]
    return Table(
        title="What else decides judgements", heads=heads, rows=rows, part="Biases", note="95 % intervals; a share of 0.5 is no bias."
    )


def _annotators(quality: DataSetQuality) -> Table:
    people = sorted(quality.annotators, key=lambda person: (-sum(person.judgements.values()), person.name))
    rows = [_annotator(person) for person in people[:MOST_SHOWN]]
    heads = ["annotator", "judgements", "overlap", "reliability", "comparisons", "ratings", "thumbs", "same rating", "seconds"]
    note = (
        "Reliability: 0 says no more than a coin, 1 is always right; by kind where others judged the same. Overlap: judgements that others "
        "can be held against."
    )
    if len(people) > MOST_SHOWN:
        note += f" The {MOST_SHOWN} who judged most, of {len(people):,}; quality.json has all."
    return Table(title="Annotators", heads=heads, rows=rows, part="Annotators", note=note, in_terminal=len(rows) <= 25)


def _annotator(person: AnnotatorReliability) -> Cells:
    of = person.reliability
    kinds = [of.get("comparison"), of.get("rating"), of.get("thumbs")]
    count = sum(person.judgements.values())
    return [person.name, count, round(person.overlap), person.combined, *kinds, person.habits.same_rating, person.median_seconds]


def _suspects(quality: DataSetQuality) -> Table:
    routes = {"others": "other annotators", "text": "the words of the texts", "both": "both"}
    rows: list[Cells] = [
        [_short(one.origin or ""), one.kind, one.annotator, one.score, routes.get(one.route, one.route)] for one in quality.noise.examples
    ]
    heads = ["where", "kind", "annotator", "probability", "because of"]
    note = (
        "How probable it is that the judgement says the opposite of the truth. Look before you throw away: rare opinions stand here, too."
    )
    return Table(title="Judgements that are probably wrong", heads=heads, rows=rows, part="Suspicious", note=note, in_terminal=False)


def _kind(kind: str, aspect: str) -> str:
    return f"ratings of {aspect}" if aspect else {"thumbs": "thumbs"}.get(kind, f"{kind}s")


def _short(data_set: str) -> str:
    """A data set or a place that is known by its file, by the end of its path."""
    return "/".join(Path(data_set).parts[-2:])


def _interval(share: Share) -> Interval:
    return Interval(share.share, share.low, share.high, share.n)
