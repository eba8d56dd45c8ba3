"""The default learning rates, which depend on the model that is trained."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from rlhf_lightning.registry import section_class
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.training.settings import LearningRates

NEW = "a model made on the spot"
TRAININGS = ("sft", "reward", "preference", "ppo")
"""Sections with a learning rate."""
ADAPTER_FACTOR = 10
"""Adapters take ten times the learning rate of all weights (Schulman et al. 2025, LoRA without regret; TRL's guide)."""
CRITIC_FACTOR = 10
"""A pretrained model's critic, whose head is new, takes ten times its learning rate, as in verl and OpenRLHF."""


def set_learning_rates(config: DictConfig) -> dict[str, str]:
    """Give each learning rate that is null the default for the model, in place.

    Returns:
        by section the rate and its reason, for the log.
    """
    reasons: dict[str, str] = {}
    choices = ComposedConfig(config)
    if not config.get("backbone"):
        return reasons
    for name in TRAININGS:
        if config[name].learning_rate is None:
            rate, reason = default_learning_rate(choices, name)
            config[name].learning_rate = rate
            reasons[name] = f"learning rate {rate:g}, the default for {reason} ({name}.learning_rate)"
            if name == "ppo" and config.ppo.critic_learning_rate is None and reason != NEW:
                config.ppo.critic_learning_rate = CRITIC_FACTOR * rates_of(name).pretrained
                reasons[name] += f"; of the critic {config.ppo.critic_learning_rate:g} (ppo.critic_learning_rate)"
    return reasons


def rates_of(name: str) -> LearningRates:
    """The default learning rates of a section."""
    settings: Any = section_class(name)
    rates: LearningRates = settings.default_rates
    return rates


def default_learning_rate(choices: ComposedConfig, name: str) -> tuple[float, str]:
    """The learning rate of a section for the chosen backbone and tuning, and what it is the default for."""
    rates = rates_of(name)
    tuning = [component.name for component in choices.components_of("reward_tuning" if name == "reward" else "policy_tuning")]
    if "corpus" in choices.component_of("backbone").needs:
        return rates.new, NEW
    if tuning == ["frozen"]:
        return rates.new, "a head on frozen weights"
    if tuning == ["lora"]:
        return ADAPTER_FACTOR * rates.pretrained, "adapters of a pretrained model"
    return rates.pretrained, "a pretrained model"
