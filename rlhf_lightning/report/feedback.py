"""Metrics, curves and tables of feedback quality for the report."""

from __future__ import annotations

from pathlib import Path

from rlhf_lightning.feedback.balance import Balance, histogram
from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.feedback.quality.quality import DataSetQuality, Quality
from rlhf_lightning.feedback.quality.reliability import AnnotatorReliability
from rlhf_lightning.report.dots import MAX_ROWS
from rlhf_lightning.report.report import Cells, Curve, Level, Metric, Series, Table
from rlhf_lightning.statistics.intervals import Interval

MAX_ANNOTATORS = 200
"""Maximum annotators listed on the page; quality.json has all."""


def quality_metrics(quality: Quality) -> list[Metric]:
    """Headline metrics: agreement, annotator reliability, biases, and the share of suspected judgements."""
    overall = quality.overall
    metrics = []
    for item in sorted(overall.agreement, key=lambda item: -item.judgements)[:3]:
        if item.alpha is not None:
            bounded = item.low is not None and item.high is not None
            alpha = Interval(item.alpha, item.low, item.high, item.units) if bounded else item.alpha  # type: ignore[arg-type]
            name = f"Agreement on {_kind(item.kind, item.aspect)}"
            metrics.append(Metric(label=name, after=alpha, digits=2, better=None, note=f"Krippendorff's alpha, {_shorten(item.data_set)}"))
    rated = [person for person in overall.annotators if person.combined is not None]
    if rated:
        overlap = sum(person.overlap for person in rated)
        mean = sum(person.overlap * (person.combined or 0.0) for person in rated) / overlap
        metrics.append(Metric(label="Reliability of an annotator", after=mean, digits=2, better=None, note="0 a coin, 1 always right"))
    if overall.noise.scored:
        share = sum(overall.noise.suspects.values()) / overall.noise.scored
        note = f"of {overall.noise.scored:,} that could be checked"
        metrics.append(Metric(label="Judgements that are probably wrong", after=share, unit="%", better=None, note=note))
    for label, wins in (("Won by the longer response", overall.bias.longer_wins), ("Won by the first shown", overall.bias.first_wins)):
        if wins is not None:
            metrics.append(
                Metric(
                    label=label,
                    after=Interval(wins.share, wins.low, wins.high, wins.n),
                    unit="%",
                    better=None,
                    note="50 % is no bias",
                    headline=False,
                )
            )
    return metrics


def quality_curves(quality: Quality) -> list[Curve]:
    """The annotators' reliability, best first, for at least three of them."""
    people = [(person.combined, person.name) for person in quality.overall.annotators if person.combined is not None]
    people.sort(key=lambda person: (-person[0], person[1]))
    if len(people) < 3:
        return []
    rows = [float(row) for row in range(1, len(people) + 1)]
    note = "0 is a coin, 1 is always right." + f" The first {MAX_ROWS} of {len(people)}." * (len(people) > MAX_ROWS)
    line = Series("reliability", rows, [reliability for reliability, _ in people])
    name, levels = "Reliability of the annotators", [Level("a coin", 0.0)]
    return [Curve(name, "reliability", "", [line], levels=levels, note=note, bounds=(0.0, 1.0), names=[name for _, name in people])]


def quality_tables(quality: Quality) -> list[Table]:
    """Agreement, biases, annotators and suspicious judgements."""
    parts = list(quality.data_sets.values())
    return [table for table in (_agreement(parts), _biases(parts), _annotators(quality.overall), _suspects(quality.overall)) if table.rows]


def balance_tables(balance: Balance) -> list[Table]:
    """The first records of each kind in words, and the distribution of the judgements."""
    examples: list[Cells] = [[kind, text] for kind, texts in balance.examples.items() for text in texts]
    rows: list[Cells] = []
    groups = {name: histogram(values) for name, values in balance.ratings.items()}
    groups |= {"thumbs": sorted(balance.thumbs.items(), reverse=True), "rankings": sorted(balance.orders.items())}
    for name, bars in groups.items():
        total = sum(count for _, count in bars)
        rows += [[name, value, count, count / total, _bar(count, max(number for _, number in bars))] for value, count in bars]
    return [
        Table(title="As they were understood", heads=["kind", "the first records"], rows=examples, part="Judgements", in_terminal=False),
        Table(title="Balance", heads=["of", "value", "judgements", "share", ""], rows=rows, part="Judgements", digits=2),
    ]


def _bar(count: int, most: int, width: int = 20) -> str:
    return ("█" * round(width * count / most)).ljust(width)


def cleaning_table(intake: Intake) -> Table:
    """Records removed and changed by each filter, with examples."""
    rows: list[Cells] = []
    for name, effects in intake.cleaning.items():
        for what, counts in (("removed", effects.removed), ("changed", effects.changed)):
            rows += [
                [name, what, reason, count, ", ".join(map(_shorten, effects.examples.get(reason, [])))]
                for reason, count in sorted(counts.items())
            ]
    heads = ["filter", "what", "why", "records", "for example"]
    return Table(title="What cleaning did", heads=heads, rows=rows, part="Cleaning", in_terminal=False)


def _agreement(parts: list[DataSetQuality]) -> Table:
    rows: list[Cells] = [
        [_shorten(a.data_set), _kind(a.kind, a.aspect), a.alpha, a.low, a.high, a.units, a.judgements, a.annotators]
        for part in parts
        for a in part.agreement
    ]
    heads = ["data set", "judgements of", "alpha", "from", "to", "units", "judgements", "annotators"]
    note = "Krippendorff's alpha with its 95 % interval: 1 is perfect agreement, 0 chance. A unit was judged by several."
    return Table(title="How far annotators agree", heads=heads, rows=rows, part="Agreement", note=note)


def _biases(parts: list[DataSetQuality]) -> Table:
    rows: list[Cells] = []
    for part in parts:
        for what, share in (("the response shown first wins", part.bias.first_wins), ("the longer response wins", part.bias.longer_wins)):
            if share is not None:
                rows.append([_shorten(part.name), what, share.share, share.low, share.high, share.n])
        for rating in part.bias.length_ratings:
            what = f"Spearman of length with {_kind('rating', rating.aspect)}"
            rows.append([_shorten(part.name), what, rating.correlation, rating.low, rating.high, rating.n])
        if part.bias.time is not None:
            rows.append(
                [_shorten(part.name), "judged faster than the texts can be read", part.bias.time.too_fast, None, None, part.bias.time.n]
            )
        pairs = part.contradictions
        for what, odd, total in (
            ("an annotator contradicts itself", pairs.within, pairs.repeated),
            ("annotators contradict each other", pairs.between, pairs.shared),
        ):
            if total:
                rows.append([_shorten(part.name), what, odd / total, None, None, total])
    heads = ["data set", "what", "share", "from", "to", "of"]
    return Table(
        title="What else decides judgements", heads=heads, rows=rows, part="Biases", note="95 % intervals; a share of 0.5 is no bias."
    )


def _annotators(quality: DataSetQuality) -> Table:
    people = sorted(quality.annotators, key=lambda person: (-sum(person.judgements.values()), person.name))
    rows = [_annotator(person) for person in people[:MAX_ANNOTATORS]]
    heads = ["annotator", "judgements", "overlap", "reliability", "comparisons", "ratings", "thumbs", "same rating", "seconds"]
    note = (
        "Reliability: 0 is a coin, 1 is always right; by kind if others judged the same. Overlap: judgements that can be compared with "
        "those of others."
    )
    if len(people) > MAX_ANNOTATORS:
        note += f" The {MAX_ANNOTATORS} who judged most, of {len(people):,}; quality.json has all."
    return Table(title="Annotators", heads=heads, rows=rows, part="Annotators", note=note, in_terminal=len(rows) <= 25)


def _annotator(person: AnnotatorReliability) -> Cells:
    of = person.reliability
    kinds = [of.get("comparison"), of.get("rating"), of.get("thumbs")]
    count = sum(person.judgements.values())
    return [person.name, count, round(person.overlap), person.combined, *kinds, person.habits.same_rating, person.median_seconds]


def _suspects(quality: DataSetQuality) -> Table:
    routes = {"others": "other annotators", "text": "the words of the texts", "both": "both"}
    rows: list[Cells] = [
        [
            _shorten(suspect.origin or ""),
            suspect.kind,
            suspect.annotator,
            suspect.score,
            routes.get(suspect.route, suspect.route),
        ]
        for suspect in quality.noise.examples
    ]
    heads = ["where", "kind", "annotator", "probability", "because of"]
    note = "Probability that the judgement is the opposite of the truth. Look at them before you remove any: rare opinions are among them."
    return Table(title="Judgements that are probably wrong", heads=heads, rows=rows, part="Suspicious", note=note, in_terminal=False)


def _kind(kind: str, aspect: str) -> str:
    return f"ratings of {aspect}" if aspect else {"thumbs": "thumbs"}.get(kind, f"{kind}s")


def _shorten(data_set: str) -> str:
    """The last two parts of the path of a data set or origin."""
    return "/".join(Path(data_set).parts[-2:])
