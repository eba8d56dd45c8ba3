"""The settings of each kind of logger (tracking/loggers.py makes it).

Ours are TRL's PPO names, so that `naming=trl` renames nothing. A metric stands in a table only where theirs is the same quantity in the
same unit; every other keeps its name. Read from verl/trainer/ppo/metric_utils.py and ray_trainer.py and the metrics of its actor and critic
(verl), and from the status that the actor and critic of openrlhf/trainer/ray return, which its loggers prefix with "train/" (OpenRLHF).

Where theirs is computed otherwise: their KL to the behaviour policy (actor/ppo_kl, ppo_kl) is the mean log-ratio, ours half its mean
square, as TRL's; their clip ratio of lengths counts responses of the greatest length, ours those that didn't end by themselves. Their KL to
the reference is a mean over tokens, ours a sum over a response: objective/kl keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import PositiveFloat

from rlhf_lightning.config.schema import did_you_mean, validate
from rlhf_lightning.errors import ConfigError

VERL = {
    "objective/scores": "critic/score/mean",
    "objective/rlhf_reward": "critic/rewards/mean",
    "objective/kl_coef": "actor/reward_kl_penalty_coeff",
    "val/response_length": "response_length/mean",
    "completions/clipped_ratio": "response_length/clip_ratio",
    "loss/policy_avg": "actor/pg_loss",
    "policy/clipfrac_avg": "actor/pg_clipfrac",
    "policy/clipfrac_lower_avg": "actor/pg_clipfrac_lower",
    "policy/approxkl_avg": "actor/ppo_kl",
    "policy/entropy_avg": "actor/entropy",
    "loss/value_avg": "critic/vf_loss",
    "val/clipfrac_avg": "critic/vf_clipfrac",
    "lr": "actor/lr",
    "sft/loss": "train/loss",
}

OPENRLHF = {
    "objective/scores": "train/reward",
    "val/response_length": "train/response_length",
    "completions/clipped_ratio": "train/response_clip_ratio",
    "loss/policy_avg": "train/policy_loss",
    "policy/clipfrac_avg": "train/ppo_clip_ratio",
    "policy/approxkl_avg": "train/ppo_kl",
    "policy/entropy_avg": "train/entropy_loss",
    "policy/sampler_kl_avg": "train/vllm_kl",
    "loss/value_avg": "train/critic_loss",
    "lr": "train/actor_lr",
    "sft/loss": "train/gpt_loss",
}

NAMINGS: dict[str, Mapping[str, str]] = {"trl": {}, "verl": VERL, "openrlhf": OPENRLHF}
"""For each naming our name to theirs."""


def rename_metrics(metrics: Mapping[str, float], naming: str) -> dict[str, float]:
    """Rename the metrics to those of a framework; a metric without one keeps its name."""
    names = NAMINGS[naming]
    return {_rename(name, names): value for name, value in metrics.items()}


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Their name of a metric; objective/scores/NAME is a score with its scorer's name before the mean."""
    score, _, scorer = name.partition("objective/scores/")
    if scorer and not score and "objective/scores" in names:
        parent, _, last = names["objective/scores"].rpartition("/")
        return f"{parent}/{scorer}/{last}" if last == "mean" else f"{parent}/{last}/{scorer}"
    return names.get(name, name)


@dataclass
class NoLogger:
    """logger=none: the report and result.json alone."""


@dataclass
class LoggerSettings:
    """logger=csv, logger=tensorboard.

    Attributes:
        naming: the framework whose metric names are used (rlhf_lightning.tracking.logger_settings).
    """

    naming: Literal["trl", "verl", "openrlhf"] = "trl"


@dataclass
class WandbSettings(LoggerSettings):
    """logger=wandb: Weights & Biases; csv and tensorboard have only `naming`, none has no setting.

    Attributes:
        naming: the framework whose metric names are used (rlhf_lightning.tracking.logger_settings).
        project: the W&B project.
        mode: offline needs no account; `wandb sync` uploads it later.
        group: the W&B group; null takes the folder of the run, or of the sweep.
        name: name of the W&B run, before the name of its training; null takes that of the folder.
        job_type: kind of the W&B run; null takes the name of the training.
        tags: words by which runs are filtered.
        notes: a longer description of the run.
        init_timeout: seconds to wait for the server at the start; then the run is logged offline, and so are those after it.
        finish_timeout: seconds to wait for uploads at the end; what is left stays on the disk for `wandb sync`.
    """

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = "rlhf_lightning"
    group: str | None = None
    name: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    init_timeout: PositiveFloat = 3
    finish_timeout: PositiveFloat = 60


LOGGERS: dict[str, Any] = {"csv": LoggerSettings, "tensorboard": LoggerSettings, "wandb": WandbSettings, "none": NoLogger}
"""The settings that each kind of logger reads."""


def logger_settings(node: Any) -> Any:
    """The validated settings of the composed `logger`, as its class in LOGGERS.

    Raises:
        ConfigError: another kind, or a setting that nothing reads.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"logger={node}: logger takes settings; choose one of {', '.join(LOGGERS)}")
    kind = node.get("kind")
    if kind not in LOGGERS:
        raise ConfigError(f"logger.kind={kind} is not one of {', '.join(LOGGERS)}{did_you_mean(str(kind), LOGGERS)}")
    rest = {str(key): node[key] for key in node if key != "kind"}
    names = ("kind", *(field.name for field in fields(LOGGERS[kind])))
    for key in rest:
        if key not in names:
            raise ConfigError(f"logger has no setting {key!r}{did_you_mean(key, names)}; logger={kind} has: {', '.join(names)}")
    return LOGGERS[kind](**validate(LOGGERS[kind], rest, "logger"))
