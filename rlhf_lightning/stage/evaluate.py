"""stage=evaluate: measure a policy on held-out prompts, optionally against a reference."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import build, component_of, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._task import build_task

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured, MetricFunction
    from rlhf_lightning.interfaces import Task, TaskPrompt
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.scoring import Scorer


def check_combination(choices: ComposedConfig) -> None:
    """Require a task, a model and a sampler. Raises ConfigError."""
    choices.require("task", "backbone", "rollout_sampler")
    choices.run_checks("rollout_scorer", "evaluation_metric")


def build_scorer(run: Run, task: Task) -> Scorer:
    """Build the command's scorers, several as their weighted sum; log their notes on how they read texts.

    Raises:
        ConfigError: a scorer reads a column that the task's rows don't have.
    """
    from rlhf_lightning.rollout.prompts import column_names
    from rlhf_lightning.rollout.scoring import WeightedScorers

    nodes = {str(name): node for name, node in run.config.rollout_scorer.items()}
    scorers = {name: build(node, *([run.settings("judge")] if "judge" in component_of(node).needs else [])) for name, node in nodes.items()}
    weights = {name: float(node.weight) for name, node in nodes.items()}
    columns = column_names([*task.train_prompts(), *task.test_prompts()])
    for name, scorer in scorers.items():
        if hasattr(scorer, "check_columns"):
            scorer.check_columns(columns)
        note = getattr(scorer, "note", "")
        if note:
            run.log(f"rollout_scorer.{name}: {note}")
    alone: Scorer = next(iter(scorers.values()))
    return alone if list(weights.values()) == [1.0] else WeightedScorers(scorers, weights)


@register("stage", "evaluate", check=check_combination)
def evaluate(run: Run, *, reference: ModelPath | None = None) -> float:
    """Measure the backbone on the task's held-out prompts; returns the mean score or first metric.

    Args:
        reference: folder or Hub name of a policy to compare with, such as the start of the training, and to measure the KL from.

    Raises:
        ConfigError: neither a scorer nor a metric that the task supports.
    """
    from rlhf_lightning.evaluation.measure import score_doubts
    from rlhf_lightning.report.policy import policy_metrics, result_metrics, side_by_side
    from rlhf_lightning.stage._report import write_report
    from rlhf_lightning.stage._task import fitting_task

    task = build_task(run)
    scorer = build_scorer(run, task) if run.config.get("rollout_scorer") else None
    if scorer is None and not build_metrics(run, task):
        raise ConfigError("there is nothing to measure: choose rollout_scorer=..., or an evaluation_metric that the task can give")
    policy = run.language_model(corpus=run.corpus(task))
    start = None if reference is None else run.language_model(reference)
    notes: list[str] = []
    task = fitting_task(run, task, *(model for model in (policy, start) if model is not None), notes=notes)
    before = None if start is None else evaluate_policy(run, task, start, scorer)
    after = evaluate_policy(run, task, policy, scorer, start)
    write_report(
        run,
        "Evaluation",
        metrics=policy_metrics(before, after),
        results=result_metrics(before, after),
        notes=[*notes, *score_doubts(after)],
        samples=side_by_side(before or after, after, run.settings("evaluation").samples),
    )
    return after.mean(next(iter(after.values)))


def evaluate_policy(
    run: Run,
    task: Task,
    policy: LanguageModel,
    scorer: Scorer | None,
    reference: LanguageModel | None = None,
    extra: Mapping[str, MetricFunction] = MappingProxyType({}),
) -> Measured:
    """Sample responses to the held-out prompts and measure them by the scorer and the chosen metrics.

    Args:
        reference: that the KL is measured from; None, as for a policy that is its own reference, measures none.
        extra: further metrics by name.

    Raises:
        UserError: the scorer can't score any of them.
    """
    from rlhf_lightning.evaluation.measure import measure, score_doubts
    from rlhf_lightning.stage._training import on_device

    models = [model.model for model in (policy, reference) if model is not None]
    metrics = {**metric_functions(run, task, scorer), **extra}
    with run.time_stage("evaluate"), on_device(run.process_device, *models):
        measured = measure(
            policy, held_out_prompts(task), run.build("rollout_sampler"), metrics, run.settings("evaluation"),
            max_new_tokens=run.max_response_tokens, seed=run.seed, reference=reference, track=run.track,
        )  # fmt: skip
    for doubt in score_doubts(measured):
        run.log(doubt)
    return measured


def held_out_prompts(task: Task) -> list[TaskPrompt]:
    """The held-out prompts; the training prompts of a task without any."""
    return task.test_prompts() or task.train_prompts()


def metric_functions(run: Run, task: Task, scorer: Scorer | None) -> dict[str, MetricFunction]:
    """The scorer as the metric "score", the scorers' other metrics, and the chosen metrics."""
    from functools import partial

    from rlhf_lightning.rollout.scoring import parts_with, scores_by_name

    metrics: dict[str, MetricFunction] = {} if scorer is None else {"score": partial(scores_by_name, scorer)}
    metrics |= {name: part.metrics for name, part in parts_with(scorer, "metrics").items()}
    return metrics | build_metrics(run, task)


def build_metrics(run: Run, task: Task) -> dict[str, MetricFunction]:
    """Build the chosen metrics by name, without a utility that the task doesn't have."""
    metrics = run.build_all("evaluation_metric", task)
    return {name: metric for name, metric in metrics.items() if name != "utility" or task.has_utility}
