"""Checks of the settings of stage=ppo and stage=rounds before any model loads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import warmup_steps
from rlhf_lightning.registry import component_of
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.stage._evaluation import check_monitor, policy_names
from rlhf_lightning.training.trainer import process_count

PROVIDED = ("values", "groups", "greedy")
"""Inputs of advantage estimators that PPO provides."""
REQUIRED_GROUPS = (
    "task", "backbone", "rollout_sampler", "advantage", "policy_tuning", "policy_loss", "policy_reduction", "policy_value_loss",
    "policy_kl", "policy_kl_control", "policy_critic", "optimizer", "schedule",
)  # fmt: skip


def check_ppo(choices: ComposedConfig) -> None:
    """Check the combination of settings of stage=ppo.

    Raises:
        ConfigError: naming both settings.
    """
    choices.require("rollout_scorer")
    check_policy_training(choices)
    check_monitor(choices, policy_names(choices))
    critic, scorers = choices.component_of("policy_critic"), [scorer.name for scorer in choices.components_of("rollout_scorer")]
    if "reward_model" in critic.needs and scorers.count("reward_model") != 1:
        raise ConfigError(
            f"policy_critic={critic.name} starts as the reward model, but rollout_scorer=[{','.join(scorers)}]: choose "
            "rollout_scorer=reward_model, or policy_critic=separate"
        )


def check_policy_training(choices: ComposedConfig) -> None:
    """Check the settings that stage=ppo and stage=rounds share. Raises ConfigError."""
    choices.require(*REQUIRED_GROUPS)
    choices.run_checks("rollout_shaping", "policy_correction", "callback")
    _check_advantage(choices)
    _check_batch(choices)
    _check_trainer(choices)
    _check_rewards(choices)
    warmup_steps(choices.config.schedule.get("warmup"), 0.0, choices.settings("ppo").updates)  # raises for one as long as the training


def _check_advantage(choices: ComposedConfig) -> None:
    responses, advantage = choices.settings("ppo").responses_per_prompt, choices.component_of("advantage")
    missing = sorted(advantage.needs - set(PROVIDED))
    if missing:
        raise ConfigError(
            f"advantage={advantage.name} needs {', '.join(missing)}, but stage=ppo provides {', '.join(PROVIDED)}; choose another advantage"
        )
    if "groups" in advantage.needs and responses < 2:
        raise ConfigError(
            f"advantage={advantage.name} compares responses to one prompt: ppo.responses_per_prompt={responses} must be at least 2"
        )


def _check_batch(choices: ComposedConfig) -> None:
    settings, world = choices.settings("ppo"), process_count(choices.config.trainer)
    responses = settings.prompts_per_update * settings.responses_per_prompt
    if responses < settings.num_minibatches:
        raise ConfigError(
            f"ppo.num_minibatches={settings.num_minibatches} is more than the {responses} responses of an update "
            "(ppo.prompts_per_update x ppo.responses_per_prompt)"
        )
    if settings.prompts_per_update % world:
        raise ConfigError(f"ppo.prompts_per_update={settings.prompts_per_update} must be a multiple of the {world} processes")


def _check_trainer(choices: ComposedConfig) -> None:
    trainer = choices.config.trainer
    if str(trainer.get("strategy")).startswith("deepspeed"):
        raise ConfigError(
            f"trainer.strategy={trainer.strategy} shards the gradients, but PPO clips by their global norm: choose trainer=ddp, or "
            "trainer=fsdp2 if the model doesn't fit; sft, reward and preference support DeepSpeed"
        )
    if trainer.get("precision") == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed scales the gradients, but PPO clips them unscaled: choose bf16-mixed or 32-true")


def _check_rewards(choices: ComposedConfig) -> None:
    misplaced = misplaced_score_shaping((choices.config.get("rollout_shaping") or {}).values())
    if misplaced:
        raise ConfigError(
            f"rollout_shaping.{misplaced} shapes scores but follows a shaping of rewards; write rollout_shaping=[{misplaced},...] with it "
            "first"
        )


def misplaced_score_shaping(shapings: Iterable[Any]) -> str | None:
    """Name of the first shaping of scores (needs "scores") after one of rewards, or None."""
    after_rewards = False
    for shaping in map(component_of, shapings):
        if "scores" in shaping.needs and after_rewards:
            return shaping.name
        after_rewards |= "scores" not in shaping.needs
    return None
