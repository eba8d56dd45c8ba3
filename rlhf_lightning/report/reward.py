"""From a reward model's metrics on held-out feedback to what the report shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.report.report import Curve, Metric, Series, Table
from rlhf_lightning.statistics.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from rlhf_lightning.reward.evaluation.held_out import HeldOut
    from rlhf_lightning.reward.evaluation.measure import RewardAgreement

Cells = list[str | float | None]
ROUNDING = 1e-4
"""Standard deviations of the score: by more than this it must not depend on the texts beside it."""
MANY_TIES = 0.02
PART = "On held-out feedback"


def reward_metrics(found: HeldOut, ceiling: float | None = None) -> list[Metric]:
    """Accuracy over all comparisons and, of several, by kind; rank correlations, the area under the curve of thumbs, the calibration error.

    Args:
        ceiling: the most that the accuracy can reach.
    """
    metrics = []
    kinds = found.accuracy if len(found.accuracy) > 2 else {"all"} & found.accuracy.keys()  # one kind alone is all there is
    for kind in sorted(kinds, key=lambda kind: (kind != "all", kind)):
        accuracy = found.accuracy[kind]
        label = "Reward-model accuracy" if kind == "all" else f"Reward-model accuracy, {kind}s"
        best, note = (ceiling if kind == "all" else None), f"{accuracy.n:,} held-out comparisons"
        metrics.append(Metric(label=label, after=accuracy, unit="%", ceiling=best, note=note, headline=kind == "all"))
    for label, value, note in (
        ("Rank correlation with held-out rankings", found.kendall, "Kendall's tau-b, mean over the rankings"),
        ("Rank correlation with held-out ratings", found.spearman, "Spearman"),
        ("Rank correlation with ratings within a prompt", found.spearman_within, "Spearman, mean over the prompts"),
        ("Thumbs up above thumbs down", found.auc, "area under the curve"),
    ):
        if value is not None:
            metrics.append(Metric(label=label, after=value, note=note, headline=not metrics))
    if found.calibration is not None:
        note = f"{100 * found.calibration.ece_by_chance:.1f} % by chance with so few" if found.calibration.ece_by_chance > 0.005 else ""
        error = found.calibration.ece
        metrics.append(Metric(label="Calibration error", after=error, unit="%", better="lower", note=note, headline=False))
    return metrics


def reliability_curve(found: Mapping[str, HeldOut]) -> list[Curve]:
    """How often each model is right by how sure it is, beside the diagonal on which a calibrated one lies; none without comparisons."""
    lines = []
    for name, one in found.items():
        bins = [] if one.calibration is None else one.calibration.bins
        if bins:
            right = [bin.right for bin in bins]
            xs, low, high = [100 * bin.stated for bin in bins], [bound.low for bound in right], [bound.high for bound in right]
            lines.append(Series(name, xs, [bound.mean for bound in right], low, high))
    if not lines:
        return []
    note = "P = sigmoid(difference of scores in log-odds); bins of equally many comparisons, 95 % intervals. Below the line: too sure."
    lines.append(Series("calibrated", [50.0, 100.0], [0.5, 1.0]))
    return [Curve("Right, by how sure", "probability that the model gives, %", "%", lines, note=note)]


def held_out_tables(found: HeldOut) -> list[Table]:
    """Accuracy by data set where there are several, what the length of a response has to do with its score, and calibration."""
    tables = []
    if len(found.by_source) > 1:
        rows = [[source, *_bounds(accuracy, 100)] for source, accuracy in sorted(found.by_source.items())]
        heads = ["data set", "accuracy, %", "from", "to", "comparisons"]
        tables.append(Table(title="Accuracy by data set", heads=heads, rows=rows, part=PART, digits=1))
    length = found.length
    lines: list[tuple[str, Interval | None]] = [
        ("accuracy where the better response is longer", length.longer),
        ("accuracy where it is shorter", length.shorter),
        ("the longer response was judged better", length.people),
        ("the longer response scores higher", length.model),
        ("Spearman of score and length", length.correlation),
        (f"the same at equal {length.control}", length.partial),
    ]
    shown: list[Cells] = [[what, *_bounds(value)] for what, value in lines if value is not None]
    if shown:
        note = "Length in characters. A model that knows length alone is right wherever the better response is longer, and nowhere else."
        heads = ["what", "value", "from", "to", "n"]
        tables.append(Table(title="Length", heads=heads, rows=shown, part=PART, note=note, digits=3))
    if found.calibration is not None:
        sure = found.calibration
        held: list[Cells] = [
            ["expected calibration error", sure.ece, sure.ece_by_chance],
            ["Brier score", sure.brier, 0.25],
            ["negative log-likelihood, nats", sure.nll, 0.693],
        ]
        note = "Beside the error: that of a calibrated model on so many comparisons. Beside the others: a coin's."
        heads = ["what", "value", "for comparison"]
        tables.append(Table(title="Calibration", heads=heads, rows=held, part=PART, note=note, digits=3, in_terminal=False))
    return tables


def held_out_notes(found: HeldOut) -> list[str]:
    """What makes the metrics doubtful, or the model."""
    notes, length = [], found.length
    if found.batch_change > ROUNDING:
        notes.append(
            f"a text's score changes by up to {found.batch_change:.2g} standard deviations with the texts beside it (rounding stays below "
            f"{ROUNDING:g}): look at the model's padding and precision"
        )
    if found.same_scores:
        notes.append(f"the model gives all {found.same_scores} texts the same score: it tells nothing apart")
    elif found.tied is not None and found.tied > MANY_TIES:
        notes.append(f"{100 * found.tied:.1f} % of the held-out comparisons have equal scores, which count as wrong")
    if length.model is not None and length.people is not None and length.model.low > length.people.high:
        notes.append(
            f"the reward model prefers the longer response in {100 * length.model.mean:.0f} % of the comparisons, people in "
            f"{100 * length.people.mean:.0f} %: a policy that is tuned on it will grow longer"
        )
    return notes


def reward_model_metrics(found: Mapping[str, HeldOut]) -> list[Metric]:
    """The accuracy, or what stands for it, as the mean over models. The note has Student's interval over them, which covers the choice of
    the seed and not, as the page's other intervals do, that of the held-out items."""
    over = mean_interval([one.objective for one in found.values()])
    label, unit = ("Reward-model accuracy", "%") if next(iter(found.values())).accuracy else ("RewardAgreement with people", "")
    metric = Metric(label=f"{label}, mean of {over.n} models", after=over.mean, unit=unit)
    low, high = (f"{metric.factor * bound:.{metric.decimals}f}" for bound in (over.low, over.high))
    return [dataclasses.replace(metric, note=f"95 % interval over the models: {low} to {high}")]


def models_tables(found: Mapping[str, HeldOut], agreement: Sequence[RewardAgreement]) -> list[Table]:
    """The models side by side, and how far they agree two by two."""
    side: list[Cells] = []
    for name, one in found.items():
        accuracy = one.accuracy.get("all")
        bounds: Cells = [None, None, None] if accuracy is None else _bounds(accuracy)[:3]
        rest = [one.kendall, one.spearman, one.auc, one.length.longer, one.length.shorter]
        side.append(
            [name, *bounds, None if one.calibration is None else one.calibration.ece, *(None if v is None else v.mean for v in rest)]
        )
    heads = ["model", "accuracy", "from", "to", "ECE", "tau", "Spearman", "AUC", "longer", "shorter"]
    note = (
        "ECE: calibration error; tau: Kendall's on rankings; Spearman on ratings; AUC of thumbs; longer, shorter: accuracy where the "
        "better response is so."
    )
    tables = [Table(title="Models side by side", heads=heads, rows=side, part=PART, note=note, digits=3)]
    pairs: list[Cells] = [[one.first, one.second, one.spearman, one.kendall, one.same_order, one.texts] for one in agreement]
    if pairs:
        heads = ["model", "and", "Spearman", "tau-b", "same order", "texts"]
        note = "Same order: how often both prefer the same of two responses to a prompt."
        tables.append(Table(title="How far the models agree", heads=heads, rows=pairs, part=PART, note=note, digits=3))
    return tables


def _bounds(value: Interval, factor: float = 1.0) -> Cells:
    return [factor * value.mean, factor * value.low, factor * value.high, value.n]
