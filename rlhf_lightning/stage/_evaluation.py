"""Evaluation during trainings, every evaluation.every steps, and the names of its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage.evaluate import evaluate_policy, held_out_prompts, metric_functions

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured, MetricFunction
    from rlhf_lightning.interfaces import Demonstration, Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.rollout.scoring import Scorer
    from rlhf_lightning.training.periodic_evaluation import Evaluation

PREFIX = "evaluation/"
LOSS = ("loss", "accuracy")
PREFERENCE = (*LOSS, "margin")
"""Metrics of supervised trainings."""
HELD_OUT_FRACTION = 0.1
"""Of the demonstrations under evaluation.every, where sft.validation_fraction is null."""


def policy_names(choices: ComposedConfig) -> list[str]:
    """Metrics of PPO's evaluation."""
    scorers = [f"score/{name}" for name in choices.config.get("rollout_scorer") or {}]
    others = [name for component in choices.components_of("rollout_scorer") for name in getattr(component.target, "METRICS", ())]
    return ["score", "kl", *(scorers if len(scorers) > 1 else ()), *others, *map(str, choices.config.get("evaluation_metric") or {})]


def check_monitor(choices: ComposedConfig, names: Sequence[str]) -> None:
    """Check that checkpoint.monitor is a metric of the stage's evaluation.

    Args:
        names: of its metrics, without PREFIX.

    Raises:
        ConfigError: another name, or no evaluation.every.
    """
    monitor = choices.settings("checkpoint").monitor
    metrics = list(dict.fromkeys(PREFIX + name for name in names))
    if monitor is None:
        return
    if monitor not in metrics:
        raise ConfigError(f"checkpoint.monitor={monitor}: no such metric{did_you_mean(monitor, metrics)}; there are: {', '.join(metrics)}")
    if choices.settings("evaluation").every is None:
        raise ConfigError(
            f"checkpoint.monitor={monitor} is measured every evaluation.every steps: set evaluation.every=10, or leave it out"
        )


def check_demonstrations(choices: ComposedConfig) -> None:
    """Check that stage=sft holds out what checkpoint.monitor needs. Raises ConfigError."""
    check_monitor(choices, LOSS)
    if choices.settings("checkpoint").monitor is not None and choices.settings("sft").validation_fraction == 0:
        raise ConfigError("checkpoint.monitor needs held-out demonstrations: set sft.validation_fraction=0.1, or leave one of them out")


def policy_evaluation(run: Run, task: Task, module: PPOModule) -> Callable[[], Evaluation]:
    """Make the evaluation of a policy in training, as `evaluate_policy` measures it."""
    from rlhf_lightning.evaluation.measure import measure_policy, prompt_batches, score_doubts
    from rlhf_lightning.training.periodic_evaluation import Evaluation
    from rlhf_lightning.training.sharding import unsharded_weights

    settings = run.settings("evaluation")
    batches = prompt_batches(held_out_prompts(task), settings.count(module.language_model.model), settings.batch_size, run.seed)

    def evaluate() -> Evaluation:
        components = module.components  # in training, where a scorer may be sharded
        metrics = metric_functions(run, task, components.scorer)
        with unsharded_weights(module.policy):
            measured = measure_policy(
                module.policy,
                module.reference,
                batches,
                components.sampler,
                metrics,
                max_new_tokens=run.max_response_tokens,
                track=run.track,
            )
        score_doubts(measured)  # raises if nothing has a score
        texts = [prompt_text(prompt) for prompt in measured.prompts]
        return Evaluation(measured.means(), {**vars(measured), "prompts": texts})

    return evaluate


def evaluate_trained(
    run: Run,
    name: str,
    before: Measured,
    task: Task,
    policy: LanguageModel,
    scorer: Scorer | None,
    reference: LanguageModel,
    extra: Mapping[str, MetricFunction] = MappingProxyType({}),
) -> Measured:
    """The last evaluation of a training if it measured the weights that are left, else a new one.

    Args:
        before: the measurement before the training, on the same prompts.
        extra: further metrics by name, that a training's evaluation doesn't have.
    """
    from rlhf_lightning.evaluation.measure import Measured

    measured = run.evaluated.get(name)
    if not measured or extra:
        return evaluate_policy(run, task, policy, scorer, reference, extra)
    return Measured(before.prompts, measured["responses"], measured["values"], measured["kl"])


def split_demonstrations(run: Run, demonstrations: Sequence[Demonstration]) -> tuple[list[Demonstration], list[Demonstration]]:
    """Training and held-out demonstrations, those of a prompt together (sft.validation_fraction).

    Raises:
        ConfigError: there is only one prompt to hold out or to train on.
    """
    fraction, every = run.settings("sft").validation_fraction, run.settings("evaluation").every
    if fraction is None:
        fraction = 0.0 if every is None else HELD_OUT_FRACTION
    if not fraction:
        return list(demonstrations), []
    prompts = list(dict.fromkeys(row.prompt or row.text for row in demonstrations))
    if len(prompts) < 2:
        raise ConfigError(
            "all demonstrations have one prompt, and none can be held out: leave evaluation.every out, or set sft.validation_fraction=0"
        )
    count = min(max(1, round(fraction * len(prompts))), len(prompts) - 1)
    held_out = {prompts[i] for i in np.random.default_rng(run.seed).permutation(len(prompts))[:count]}
    training = [row for row in demonstrations if (row.prompt or row.text) not in held_out]
    return training, [row for row in demonstrations if (row.prompt or row.text) in held_out]
