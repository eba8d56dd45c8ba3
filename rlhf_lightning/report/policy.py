"""Metrics, curves and samples of a policy for the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile

from rlhf_lightning.evaluation.measure import Measured
from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.report.report import Curve, FeedbackCount, Metric, Sample, Series
from rlhf_lightning.statistics.intervals import mean_interval, paired_interval
from rlhf_lightning.statistics.pass_at_k import pass_at_k
from rlhf_lightning.training.periodic_evaluation import PREFIX

History = Sequence[Mapping[str, float]]
LABELS = {
    "score": "Score",
    "utility": "Hidden utility",
    "length": "Response length",
    "distinct_2": "Distinct word pairs",
    "held_out_tests": "Held-out tests",
}
PASS_AT_1 = "pass@1"
UNITS = {"length": "tokens"}
COMPONENT = "objective/scores/"
WATCHED = (
    ("Held-out score", "", "objective/held_out_scores"),
    ("Hidden utility", "", "objective/utility"),
    ("Responses that end by themselves", "%", "val/eos_rate"),
    ("Distinct token pairs", "%", "val/distinct_2"),
)
"""Curves that reveal reward hacking: title, unit and logged metric."""


def policy_metrics(before: Measured | None, after: Measured) -> list[Metric]:
    """Each metric with its 95 % interval, and the KL from the reference.

    Intervals are over prompts: responses to one prompt are averaged first, since they are dependent. The change is paired.
    """
    metrics = []
    starts = {} if before is None else prompt_values(before)
    for name, values in prompt_values(after).items():
        start = starts.get(name)
        both = [] if start is None else [prompt for prompt in start if prompt in values]
        metrics.append(
            Metric(
                label=LABELS.get(name, name.replace("score/", "Score: ")),
                before=mean_interval(list(start.values())) if start else None,
                after=mean_interval(list(values.values())) if values else None,
                change=paired_interval([start[prompt] for prompt in both], [values[prompt] for prompt in both]) if start and both else None,
                unit=UNITS.get(name, ""),
                better="higher" if name in ("score", "utility", "held_out_tests") or name.startswith(("score/", "pass@")) else None,
                headline=name in ("score", "utility"),
            )
        )
    if after.kl is not None:
        metrics.append(Metric(label="KL from the start, per response", before=0.0, after=after.kl, unit="nats", better=None))
    return metrics


def prompt_values(measured: Measured) -> dict[str, dict[Prompt, float]]:
    """Mean value of each metric for each prompt, and pass@k where pass@1 was measured."""
    values = {name: prompt_means(measured, name) for name in measured.values}
    if PASS_AT_1 in values:
        counts = Counter(prompt for prompt, passed in zip(measured.prompts, measured.values[PASS_AT_1], strict=True) if passed == passed)
        for k in takewhile(lambda k: k <= min(counts.values(), default=0), (2, 4, 8, 16, 32, 64)):
            means = values[PASS_AT_1].items()
            values[f"pass@{k}"] = {prompt: pass_at_k(counts[prompt], round(mean * counts[prompt]), k) for prompt, mean in means}
    return values


def prompt_means(measured: Measured, metric: str) -> dict[Prompt, float]:
    """The metric's mean for each distinct prompt with a scored response, in the order of the prompts."""
    of_prompt: dict[Prompt, list[float]] = {}
    for prompt, value in zip(measured.prompts, measured.values[metric], strict=True):
        if not math.isnan(value):
            of_prompt.setdefault(prompt, []).append(value)
    return {prompt: sum(values) / len(values) for prompt, values in of_prompt.items()}


def feedback_counts(intake: Intake) -> list[FeedbackCount]:
    return [FeedbackCount(kind, count, intake.remaining[kind]) for kind, count in sorted(intake.collected.items())]


def curve(name: str, x_label: str, unit: str, histories: Mapping[str, History], metric: str) -> Curve:
    """One metric of each history against its step, counted from 1."""
    lines = [
        Series(label, [float(i) for i in range(1, len(history) + 1)], [step.get(metric, float("nan")) for step in history])
        for label, history in histories.items()
    ]
    return Curve(name, x_label, unit, lines)


def ppo_curves(histories: Mapping[str, History]) -> list[Curve]:
    """Score, KL, entropy and length per update, and the curves of WATCHED that were logged."""
    curves = [
        curve("Score", "update", "", histories, "objective/scores"),
        curve("KL from the start", "update", "nats per response", histories, "objective/kl"),
        curve("Entropy", "update", "nats per token", histories, "policy/entropy_avg"),
        curve("Response length", "update", "tokens", histories, "val/response_length"),
    ]
    # The mean score of each of several scorers, before its weight.
    components = dict.fromkeys(name for history in histories.values() for step in history for name in step if name.startswith(COMPONENT))
    curves += [curve(f"Score: {name.removeprefix(COMPONENT)}", "update", "", histories, name) for name in components]
    curves += [sparse_curve(name, "update", unit, histories, metric) for name, unit, metric in WATCHED]
    return [curve for curve in curves if curve.series] + evaluation_curves(histories, "update")


def evaluation_curves(histories: Mapping[str, History], x_label: str = "step") -> list[Curve]:
    """The metrics of evaluation.every, on held-out data."""
    names = dict.fromkeys(name for history in histories.values() for step in history for name in step if name.startswith(PREFIX))
    labels = {"kl": "KL from the start", "loss": "Loss", "accuracy": "Accuracy", "margin": "Margin of implicit rewards", **LABELS}
    curves = []
    for name in names:
        metric = name.removeprefix(PREFIX)
        curves.append(sparse_curve(f"Held out: {labels.get(metric, metric)}", x_label, UNITS.get(metric, ""), histories, name))
    return curves


def sparse_curve(name: str, x_label: str, unit: str, histories: Mapping[str, History], metric: str) -> Curve:
    """A metric that isn't logged at every step, without gaps."""
    logged = {
        label: [(float(i), step[metric]) for i, step in enumerate(history, 1) if metric in step] for label, history in histories.items()
    }
    return Curve(
        name, x_label, unit, [Series(label, [x for x, _ in points], [y for _, y in points]) for label, points in logged.items() if points]
    )


def side_by_side(before: Measured, after: Measured, count: int) -> list[Sample]:
    """Responses of both to the same prompts, at regular intervals."""
    step = max(1, len(after.prompts) // count)
    return [
        Sample(
            prompt=prompt_text(after.prompts[i]),
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


def result_metrics(before: Measured | None, after: Measured) -> dict[str, float]:
    """Mean values, for result.json and the table of a sweep."""
    results: dict[str, float] = {}
    for when, measured in ({"after": after} | ({} if before is None else {"before": before})).items():
        results |= {f"{name}/{when}": measured.mean(name) for name in measured.values}
        extra = {name: values for name, values in prompt_values(measured).items() if name not in measured.values and values}
        results |= {f"{name}/{when}": sum(values.values()) / len(values) for name, values in extra.items()}
    return results | ({} if after.kl is None else {"kl": after.kl})


def mean_of_last(history: History, metric: str, steps: int = 20) -> float:
    """The mean of a metric over the last steps, without non-finite (skipped) ones; NaN if there are none."""
    last = [step[metric] for step in history[-steps:] if math.isfinite(step[metric])]
    return sum(last) / len(last) if last else math.nan
