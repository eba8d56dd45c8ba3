"""stage=evaluate: measure a policy on held-out prompts, alone or against another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured, MetricFunction
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.scoring import Scorer


def check_combination(choices: ComposedConfig) -> None:
    """Refuse a command without what is measured or what it is measured on. Raises ConfigError."""
    choices.require("task", "backbone", "rollout_sampler")
    choices.run_checks("rollout_scorer", "evaluation_metric")


def scorer_of(run: Run) -> Scorer:
    """The command's scorer; how it reads texts is logged where that isn't plain."""
    scorer: Scorer = run.build("rollout_scorer")
    note = getattr(scorer, "note", "")
    if note:
        run.log(f"rollout_scorer: {note}")
    return scorer


@register("stage", "evaluate", check=check_combination)
def evaluate(run: Run, *, reference: ModelPath | None = None) -> float:
    """Measure the backbone on the task's held-out prompts. Returns the mean of the scorer, or of the first metric without one.

    Args:
        reference: folder or Hub name of a policy to compare with (the start of the training, say), which also gives the KL.

    Raises:
        ConfigError: neither a scorer nor a metric that the task can give.
    """
    from rlhf_lightning.evaluation.measure import score_doubts
    from rlhf_lightning.report.policy import policy_metrics, result_metrics, side_by_side
    from rlhf_lightning.stage._fitting_task import fitting_task
    from rlhf_lightning.stage._report import end

    task = run.build("task")
    scorer = scorer_of(run) if run.config.get("rollout_scorer") else None
    if scorer is None and not metrics_for(run, task):
        raise ConfigError("there is nothing to measure: choose rollout_scorer=..., or an evaluation_metric that the task can give")
    policy = run.language_model(corpus=run.corpus(task))
    start = None if reference is None else run.language_model(reference)
    notes: list[str] = []
    task = fitting_task(run, task, *(model for model in (policy, start) if model is not None), notes=notes)
    with run.time_stage("evaluate"):
        before = None if start is None else measured(run, task, start, scorer, start)
        after = measured(run, task, policy, scorer, start)
    notes += score_doubts(after)
    results = result_metrics(before, after)
    end(run, "Evaluation", metrics=policy_metrics(before, after), results=results, notes=notes,
        samples=side_by_side(before or after, after, run.settings("evaluation").samples))  # fmt: skip
    return after.mean(next(iter(after.values)))


def measured(run: Run, task: Task, policy: LanguageModel, scorer: Scorer | None, reference: LanguageModel | None) -> Measured:
    """Responses to the held-out prompts under the run's sampler, by the scorer and every chosen metric that the task can give.

    Raises:
        UserError: the scorer can't score any of them.
    """
    from functools import partial

    from rlhf_lightning.evaluation.measure import measure, score_doubts
    from rlhf_lightning.rollout.scoring import checked_scores

    metrics: dict[str, MetricFunction] = {} if scorer is None else {"score": partial(checked_scores, scorer)}
    metrics |= metrics_for(run, task)
    prompts = task.test_prompts() or task.train_prompts()
    found = measure(
        policy, prompts, run.build("rollout_sampler"), metrics, run.settings("evaluation"),
        max_new_tokens=run.max_response_tokens, seed=run.seed, reference=reference,
    )  # fmt: skip
    for doubt in score_doubts(found):
        run.log(doubt)
    return found


def metrics_for(run: Run, task: Task) -> dict[str, MetricFunction]:
    """The chosen metrics by name; the utility only where the task knows one."""
    chosen = run.build_all("evaluation_metric", task)
    return {name: metric for name, metric in chosen.items() if name != "utility" or task.has_utility}
