"""From what was measured to what the report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlhf_lightning.evaluation.measure import Measured
from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.report.report import Curve, FeedbackCount, Figure, Sample, Series
from rlhf_lightning.statistics.intervals import mean_interval, paired_interval

History = Sequence[Mapping[str, float]]
LABELS = {"score": "Score", "utility": "Hidden utility", "length": "Response length", "distinct_2": "Distinct word pairs"}
UNITS = {"length": "tokens"}
WATCHED = (
    ("Held-out score", "", "objective/holdout_scores"),
    ("Hidden utility", "", "objective/utility"),
    ("Responses that end by themselves", "%", "val/eos_rate"),
    ("Distinct token pairs", "%", "val/distinct_2"),
)
"""Curves that show a scorer being gamed, where their metric was logged."""


def metric_figures(before: Measured | None, after: Measured) -> list[Figure]:
    """A figure for each metric with 95 % intervals, and the KL from the reference.

    Intervals are over prompts: responses to one prompt are averaged first, since they aren't independent. The change is paired.
    """
    figures = []
    for name in after.values:
        values, start = prompt_means(after, name), None if before is None or name not in before.values else prompt_means(before, name)
        both = [] if start is None else [prompt for prompt in start if prompt in values]
        figures.append(
            Figure(
                label=LABELS.get(name, name),
                before=mean_interval(list(start.values())) if start else None,
                after=mean_interval(list(values.values())) if values else None,
                change=paired_interval([start[prompt] for prompt in both], [values[prompt] for prompt in both]) if start and both else None,
                unit=UNITS.get(name, ""),
                better="higher" if name in ("score", "utility") else None,
                headline=name in ("score", "utility"),
            )
        )
    if after.kl is not None:
        figures.append(Figure(label="KL from the start, per response", before=0.0, after=after.kl, unit="nats", better=None))
    return figures


def prompt_means(measured: Measured, metric: str) -> dict[str, float]:
    """The metric's mean for each distinct prompt, in the order of the prompts; without those of which no response can be scored."""
    of_prompt: dict[str, list[float]] = {}
    for prompt, value in zip(measured.prompts, measured.values[metric], strict=True):
        if not math.isnan(value):
            of_prompt.setdefault(prompt, []).append(value)
    return {prompt: sum(values) / len(values) for prompt, values in of_prompt.items()}


def feedback_counts(intake: Intake) -> list[FeedbackCount]:
    return [FeedbackCount(kind, count, intake.kept[kind]) for kind, count in sorted(intake.collected.items())]


def curve(name: str, x_label: str, unit: str, histories: Mapping[str, History], figure: str) -> Curve:
    """One figure of each history against its step, counted from 1."""
    lines = [
        Series(label, [float(i) for i in range(1, len(history) + 1)], [step.get(figure, float("nan")) for step in history])
        for label, history in histories.items()
    ]
    return Curve(name, x_label, unit, lines)


def ppo_curves(histories: Mapping[str, History]) -> list[Curve]:
    """Score, KL, entropy and length per update; and where they were logged the scores that nothing was trained on, and the shape of the
    responses."""
    curves = [
        curve("Score", "update", "", histories, "objective/scores"),
        curve("KL from the start", "update", "nats per response", histories, "objective/kl"),
        curve("Entropy", "update", "nats per token", histories, "policy/entropy_avg"),
        curve("Response length", "update", "tokens", histories, "val/response_length"),
    ]
    for name, unit, figure in WATCHED:
        # A score taken at every tenth update is a line through these, not points between gaps.
        taken = {
            label: [(float(i), step[figure]) for i, step in enumerate(history, 1) if figure in step] for label, history in histories.items()
        }
        lines = [Series(label, [x for x, _ in points], [y for _, y in points]) for label, points in taken.items() if points]
        if lines:
            curves.append(Curve(name, "update", unit, lines))
    return curves


def side_by_side(before: Measured, after: Measured, count: int) -> list[Sample]:
    """Responses of both to the same prompts, spread over the prompts measured."""
    step = max(1, len(after.prompts) // count)
    return [
        Sample(
            prompt=after.prompts[i],
            before=before.responses[i],
            after=after.responses[i],
            **{
                f"{name}_{when}": None if math.isnan(m.values[name][i]) else m.values[name][i]
                for when, m in (("before", before), ("after", after))
                for name in ("score", "utility")
                if name in m.values
            },
        )
        for i in range(0, len(after.prompts), step)[:count]
    ]


def compared(before: Measured | None, after: Measured) -> dict[str, float]:
    """The means, for result.json and the table of a sweep."""
    results = {f"{name}/after": after.mean(name) for name in after.values}
    if before is not None:
        results |= {f"{name}/before": before.mean(name) for name in before.values}
    return results | ({} if after.kl is None else {"kl": after.kl})


def mean_of_last(history: History, figure: str, steps: int = 20) -> float:
    """The mean of a figure over the last steps: steadier than the last one. A step whose figure isn't finite, which was not applied, isn't
    counted; NaN where none is."""
    last = [step[figure] for step in history[-steps:] if math.isfinite(step[figure])]
    return sum(last) / len(last) if last else math.nan
