"""Metrics, curves, tables and notes of reward models on held-out feedback for the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.report.report import Cells, Curve, Metric, Series, Table
from rlhf_lightning.statistics.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from rlhf_lightning.reward.evaluation.held_out import HeldOut
    from rlhf_lightning.reward.evaluation.measure import RewardAgreement

ROUNDING = 1e-4
"""Maximum dependence of a score on its batch, in standard deviations."""
MANY_TIES = 0.02
PART = "On held-out feedback"


def reward_metrics(held_out: HeldOut, ceiling: float | None = None) -> list[Metric]:
    """Accuracy overall and by kind, rank correlations, AUC of thumbs, and calibration error.

    Args:
        ceiling: maximum possible accuracy.
    """
    metrics = []
    kinds = held_out.accuracy if len(held_out.accuracy) > 2 else {"all"} & held_out.accuracy.keys()  # a single kind equals "all"
    for kind in sorted(kinds, key=lambda kind: (kind != "all", kind)):
        accuracy = held_out.accuracy[kind]
        label = "Reward-model accuracy" if kind == "all" else f"Reward-model accuracy, {kind}s"
        limit, note = (ceiling if kind == "all" else None), f"{accuracy.n:,} held-out comparisons"
        metrics.append(Metric(label=label, after=accuracy, unit="%", ceiling=limit, note=note, headline=kind == "all"))
    for label, value, note in (
        ("Rank correlation with held-out rankings", held_out.kendall, "Kendall's tau-b, mean over the rankings"),
        ("Rank correlation with held-out ratings", held_out.spearman, "Spearman"),
        ("Rank correlation with ratings within a prompt", held_out.spearman_within, "Spearman, mean over the prompts"),
        ("Thumbs up above thumbs down", held_out.auc, _class_balance(held_out)),
    ):
        if value is not None:
            metrics.append(Metric(label=label, after=value, note=note, headline=not metrics))
    if held_out.calibration is not None:
        error, chance = held_out.calibration.ece, held_out.calibration.ece_by_chance
        note = f"{100 * chance:.1f} % by chance with so few" if chance > 0.005 else ""
        metrics.append(Metric(label="Calibration error", after=error, unit="%", better="lower", note=note, headline=False))
    return metrics


def _class_balance(held_out: HeldOut) -> str:
    """The meaning of an area under the curve, with what a constant answer gets right."""
    up = held_out.thumbs_up
    return "area under the curve" if up is None else f"area under the curve; {100 * up:.0f} % of the thumbs are up"


def reliability_curve(by_model: Mapping[str, HeldOut]) -> list[Curve]:
    """Reliability diagram: accuracy by stated probability of each model; empty without comparisons."""
    lines = []
    for name, held_out in by_model.items():
        bins = [] if held_out.calibration is None else held_out.calibration.bins
        if bins:
            right = [bin.right for bin in bins]
            xs, low, high = [100 * bin.stated for bin in bins], [bound.low for bound in right], [bound.high for bound in right]
            lines.append(Series(name, xs, [bound.mean for bound in right], low, high))
    if not lines:
        return []
    note = "P = sigmoid(difference of scores in log-odds); bins of equally many comparisons, 95 % intervals. Below the line: too sure."
    lines.append(Series("calibrated", [50.0, 100.0], [0.5, 1.0]))
    return [Curve("Right, by how sure", "probability that the model gives, %", "%", lines, note=note)]


def held_out_tables(held_out: HeldOut) -> list[Table]:
    """Accuracy by data set (if several), dependence of scores on length, and calibration."""
    tables = []
    if len(held_out.by_source) > 1:
        rows = [[source, *_bounds(accuracy, 100)] for source, accuracy in sorted(held_out.by_source.items())]
        heads = ["data set", "accuracy, %", "from", "to", "comparisons"]
        tables.append(Table(title="Accuracy by data set", heads=heads, rows=rows, part=PART, digits=1))
    length = held_out.length
    lines: list[tuple[str, Interval | None]] = [
        ("accuracy where the better response is longer", length.longer),
        ("accuracy where it is shorter", length.shorter),
        ("the longer response was judged better", length.people),
        ("the longer response scores higher", length.model),
        ("Spearman of score and length", length.correlation),
        (f"the same at equal {length.control}", length.partial),
    ]
    length_rows: list[Cells] = [[what, *_bounds(value)] for what, value in lines if value is not None]
    if length_rows:
        note = "Length in characters. A model of length only is right exactly where the better response is longer."
        heads = ["what", "value", "from", "to", "n"]
        tables.append(Table(title="Length", heads=heads, rows=length_rows, part=PART, note=note, digits=3))
    if held_out.calibration is not None:
        calibration = held_out.calibration
        calibration_rows: list[Cells] = [
            ["expected calibration error", calibration.ece, calibration.ece_by_chance],
            ["Brier score", calibration.brier, 0.25],
            ["negative log-likelihood, nats", calibration.nll, 0.693],
        ]
        note = "For comparison: the error of a calibrated model on as many comparisons; for the others, a coin's."
        heads = ["what", "value", "for comparison"]
        tables.append(Table(title="Calibration", heads=heads, rows=calibration_rows, part=PART, note=note, digits=3, in_terminal=False))
    return tables


def held_out_notes(held_out: HeldOut) -> list[str]:
    """The verdict on the model, and warnings about the metrics."""
    notes, length = [] if held_out.verdict is None else [held_out.verdict.text], held_out.length
    if held_out.batch_change > ROUNDING:
        notes.append(
            f"a text's score changes by up to {held_out.batch_change:.2g} standard deviations with the texts in its batch (rounding stays "
            f"below {ROUNDING:g}): look at the model's padding and precision"
        )
    if held_out.same_scores:
        notes.append(f"the model gives all {held_out.same_scores} texts the same score: it tells nothing apart")
    elif held_out.tied is not None and held_out.tied > MANY_TIES:
        notes.append(f"{100 * held_out.tied:.1f} % of the held-out comparisons have equal scores, which count as wrong")
    if length.model is not None and length.people is not None and length.model.low > length.people.high:
        notes.append(
            f"the reward model prefers the longer response in {100 * length.model.mean:.0f} % of the comparisons, people in "
            f"{100 * length.people.mean:.0f} %: a policy that is tuned on it will grow longer"
        )
    return notes


def reward_model_metrics(by_model: Mapping[str, HeldOut]) -> list[Metric]:
    """The mean objective (accuracy, or its substitute) over models.

    The note has Student's interval over the models, which covers the choice of the seed; the page's other intervals cover that of
    the held-out items.
    """
    over = mean_interval([held_out.objective for held_out in by_model.values()])
    label, unit = ("Reward-model accuracy", "%") if next(iter(by_model.values())).accuracy else ("Agreement with people", "")
    metric = Metric(label=f"{label}, mean of {over.n} models", after=over.mean, unit=unit)
    low, high = (f"{metric.factor * bound:.{metric.decimals}f}" for bound in (over.low, over.high))
    return [dataclasses.replace(metric, note=f"95 % interval over the models: {low} to {high}")]


def models_tables(by_model: Mapping[str, HeldOut], agreement: Sequence[RewardAgreement]) -> list[Table]:
    """The models side by side, and their pairwise agreement."""
    models: list[Cells] = []
    for name, held_out in by_model.items():
        accuracy = held_out.accuracy.get("all")
        bounds: Cells = [None, None, None] if accuracy is None else _bounds(accuracy)[:3]
        error = None if held_out.calibration is None else held_out.calibration.ece
        rest = [held_out.kendall, held_out.spearman, held_out.auc, held_out.length.longer, held_out.length.shorter]
        models.append([name, *bounds, error, *(None if value is None else value.mean for value in rest)])
    heads = ["model", "accuracy", "from", "to", "ECE", "tau", "Spearman", "AUC", "longer", "shorter"]
    note = (
        "ECE: calibration error; tau: Kendall's on rankings; Spearman on ratings; AUC of thumbs; longer, shorter: accuracy where the "
        "better response is so."
    )
    tables = [Table(title="Models side by side", heads=heads, rows=models, part=PART, note=note, digits=3)]
    pairs: list[Cells] = [[a.first, a.second, a.spearman, a.kendall, a.same_order, a.texts] for a in agreement]
    if pairs:
        heads = ["model", "and", "Spearman", "tau-b", "same order", "texts"]
        note = "Same order: how often both prefer the same of two responses to a prompt."
        tables.append(Table(title="How far the models agree", heads=heads, rows=pairs, part=PART, note=note, digits=3))
    return tables


def _bounds(value: Interval, factor: float = 1.0) -> Cells:
    return [factor * value.mean, factor * value.low, factor * value.high, value.n]
