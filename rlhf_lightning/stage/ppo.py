"""stage=ppo: tune the policy against a scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import component_of, make, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage.sft import demonstrations_of, log_skipped
from rlhf_lightning.training.trainer import processes

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.policy.components import PPOParts
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.rollout.scoring import Scorer

PROVIDED = ("values", "groups", "greedy")
"""What an advantage estimator may need and this stage has."""
NEEDED = (
    "task", "backbone", "rollout_sampler", "advantage", "policy_tuning", "policy_loss", "policy_reduction", "policy_value_loss",
    "policy_kl_control", "policy_critic",
)  # fmt: skip
"""The groups of which this stage needs an option."""
SHOWN = {"objective/scores": "score", "objective/kl": "KL", "policy/entropy_avg": "entropy", "val/response_length": "length"}
"""Metrics beside the bar, and their labels."""


def check_combination(choices: ComposedConfig) -> None:
    """Refuse settings that don't go together, before any model loads.

    Raises:
        ConfigError: naming both settings.
    """
    choices.require("rollout_scorer")
    check_training(choices)
    critic, scorer = choices.component_of("policy_critic"), choices.component_of("rollout_scorer")
    if "reward_model" in critic.needs and scorer.name != "reward_model":
        raise ConfigError(
            f"policy_critic={critic.name} begins as the reward model, and rollout_scorer={scorer.name} is none: choose "
            "rollout_scorer=reward_model, or policy_critic=separate"
        )


def check_training(choices: ComposedConfig) -> None:
    """What stage=ppo and stage=rounds have in common of `check_combination`."""
    choices.require(*NEEDED)
    choices.run_checks("rollout_shaping", "policy_correction", "policy_penalty")
    _check_advantage(choices)
    _check_batch(choices)
    _check_rewards(choices)


def _check_advantage(choices: ComposedConfig) -> None:
    settings, advantage = choices.settings("ppo"), choices.component_of("advantage")
    missing = sorted(advantage.needs - set(PROVIDED))
    if missing:
        raise ConfigError(
            f"advantage={advantage.name} needs {', '.join(missing)}, which stage=ppo doesn't provide (it provides {', '.join(PROVIDED)}); "
            "choose another advantage"
        )
    if "groups" in advantage.needs and settings.responses_per_prompt < 2:
        raise ConfigError(
            f"advantage={advantage.name} compares responses to one prompt: ppo.responses_per_prompt={settings.responses_per_prompt} "
            "must be at least 2"
        )


def _check_batch(choices: ComposedConfig) -> None:
    settings, trainer = choices.settings("ppo"), choices.config.trainer
    responses, together = settings.prompts_per_update * settings.responses_per_prompt, processes(trainer)
    if responses < settings.minibatches:
        raise ConfigError(
            f"ppo.minibatches={settings.minibatches} is more than the {responses} responses of an update "
            "(ppo.prompts_per_update x ppo.responses_per_prompt)"
        )
    if settings.prompts_per_update % together:
        raise ConfigError(f"ppo.prompts_per_update={settings.prompts_per_update} must be a multiple of the {together} processes")
    if str(trainer.get("strategy")).startswith("deepspeed"):
        raise ConfigError(
            f"trainer.strategy={trainer.strategy} leaves a process parts of the gradients, which PPO clips by their whole norm: choose "
            "trainer=ddp, or trainer=fsdp2 where the model doesn't fit; sft, reward and preference take DeepSpeed"
        )
    if trainer.get("precision") == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed scales its gradients, which PPO clips unscaled: choose bf16-mixed or 32-true")


def _check_rewards(choices: ComposedConfig) -> None:
    shapings, penalties = choices.config.get("rollout_shaping") or {}, choices.config.get("policy_penalty") or {}
    if "kl" in shapings and "kl" in penalties:
        raise ConfigError(
            "the KL would be paid twice, in the reward (rollout_shaping=[...,kl]) and in the loss (policy_penalty=[kl]): leave one out, "
            "as in rollout_shaping=[missing_eos] policy_penalty=[kl]"
        )
    late = misplaced_score_shaping(shapings.values())
    if late:
        raise ConfigError(
            f"rollout_shaping.{late} shapes scores and stands behind a shaping of rewards; write rollout_shaping=[{late},...] with it first"
        )


def misplaced_score_shaping(shapings: Iterable[Any]) -> str | None:
    """The first shaping of scores (needs "scores") that stands behind one of rewards; None where all is in order."""
    rewards_changed = False
    for shaping in map(component_of, shapings):
        if "scores" in shaping.needs and rewards_changed:
            return shaping.name
        rewards_changed |= "scores" not in shaping.needs
    return None


@register("stage", "ppo", check=check_combination)
def ppo(run: Run) -> float:
    """Tune the backbone against rollout_scorer on the task's prompts; leaves the folder policy/. Returns the held-out mean score after."""
    from rlhf_lightning.evaluation.measure import score_doubts
    from rlhf_lightning.policy.alarms import alarm_notes
    from rlhf_lightning.report.policy import compared, policy_metrics, ppo_curves, side_by_side
    from rlhf_lightning.stage._fitting_task import critic_prompts, fitting_task
    from rlhf_lightning.stage._reference import prepare_policy_and_reference
    from rlhf_lightning.stage._report import end
    from rlhf_lightning.stage.evaluate import measured, scorer_of

    scorer = scorer_of(run)
    task = run.build("task")
    if run.settings("ppo").ptx_coef:
        demonstrations_of(task)  # refused before the model loads
    held_out = held_out_scorers(run, task)
    corpus = run.corpus(task)
    policy = run.language_model(corpus=corpus)
    notes: list[str] = []
    task = fitting_task(run, task, policy, *critic_prompts(run, policy, scorer), notes=notes)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    before = measured(run, task, policy, scorer, reference)
    module = train_ppo(run, policy, reference, scorer, task, run.folder / "policy", held_out)
    after = measured(run, task, policy, scorer, reference)
    end(
        run,
        "PPO",
        metrics=policy_metrics(before, after),
        curves=ppo_curves({"": module.history}),
        samples=side_by_side(before, after, run.settings("evaluation").samples),
        notes=[*notes, *score_doubts(after), *alarm_notes({"": module.history})],
        results=compared(before, after),
    )
    run.log(f"policy: {run.folder / 'policy'}")
    return after.mean("score")


def held_out_scorers(run: Run, task: Task) -> dict[str, Scorer]:
    """Scorers that nothing is trained on, by the name of the metric: ppo.holdout_scorer, and the task's hidden utility where it has one."""
    from functools import partial

    from rlhf_lightning.evaluation.metric.utility import utility

    path = run.settings("ppo").holdout_scorer
    found: dict[str, Scorer] = {}
    if path:
        found["objective/holdout_scores"] = make("rollout_scorer", "reward_model", {"path": path})
    if task.has_utility:
        found["objective/utility"] = partial(utility, task)
    return found


def train_ppo(
    run: Run,
    policy: LanguageModel,
    reference: LanguageModel,
    scorer: Scorer,
    task: Task,
    folder: Path,
    held_out: Mapping[str, Scorer],
    name: str = "ppo",
    at_reference: bool = True,
) -> PPOModule:
    """Train the policy in place and save it as a plain Hugging Face folder.

    Args:
        reference: the policy itself, if its adapters are trained, or a second copy of the start.
        held_out: scorers that nothing is trained on, by the name of their metric.
        at_reference: whether the policy is still the reference.
    """
    import torch

    from rlhf_lightning.policy.model import Policy, reference_policy
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.rollout.prompts import prompt_loader
    from rlhf_lightning.training.datamodule import ShardedData

    settings = run.settings("ppo")
    with run.time_stage("ppo"):
        torch.manual_seed(run.seed)
        critic = run.build("policy_critic")(policy, scorer) if "values" in run.component_of("advantage").needs else None
        parts = parts_of(run, scorer, held_out, at_reference, demonstrated(run, task, policy))
        module = PPOModule(Policy(policy, critic), reference_policy(policy, reference), parts, settings, run.seed)
        trainer = run.trainer(name, 1, settings.updates, SHOWN)

        def loader(rank: int, world: int) -> DataLoader[Any]:
            updates, share = settings.updates, settings.prompts_per_update
            return prompt_loader(
                task.train_prompts(), policy, updates, share, run.max_response_tokens, seed=run.seed, rank=rank, world=world
            )

        run.fit(name, trainer, module, ShardedData(loader))
        run.save(trainer, folder, policy.save)
    return module


def demonstrated(run: Run, task: Task, policy: LanguageModel) -> Callable[[int, int], DataLoader[Any]] | None:
    """The loaders of what the policy must not unlearn; None without ppo.ptx_coef."""
    from rlhf_lightning.sft.module import demonstration_loader

    if not run.settings("ppo").ptx_coef:
        return None
    shown = demonstrations_of(task)
    _, skipped = demonstration_loader(shown, policy, run.settings("sft"), run.seed, 0, 1)
    log_skipped(run, "ppo.ptx_coef", policy, skipped, len(shown))
    return lambda rank, world: demonstration_loader(shown, policy, run.settings("sft"), run.seed, rank, world)[0]


def parts_of(
    run: Run,
    scorer: Scorer,
    held_out: Mapping[str, Scorer],
    at_reference: bool,
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None,
) -> PPOParts:
    """The components that the command chooses for an iteration."""
    from rlhf_lightning.policy.components import PPOParts
    from rlhf_lightning.policy.objective import objective

    corrected = bool(run.config.get("policy_correction"))
    correction = run.build("policy_correction") if corrected else None
    greedy = {"max_new_tokens": run.max_response_tokens, "temperature": 0.0}
    return PPOParts(
        sampler=run.build("rollout_sampler"),
        scorer=scorer,
        shapings=list(run.build_all("rollout_shaping").values()),
        advantage=run.build("advantage"),
        loss=objective(run.build("policy_loss"), correction, list(run.build_all("policy_penalty").values())),
        reduction=run.build("policy_reduction"),
        value_loss=run.build("policy_value_loss"),
        kl_control=run.build("policy_kl_control"),
        held_out=held_out,
        at_reference=at_reference,
        corrected=corrected,
        demonstrations=demonstrations,
        greedy=make("rollout_sampler", "native", greedy) if "greedy" in run.component_of("advantage").needs else None,
        log=run.log,
    )
