"""The settings of each kind of logger (tracking/loggers.py makes it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import PositiveFloat

from rlhf_lightning.config.schema import did_you_mean, validate
from rlhf_lightning.errors import ConfigError


@dataclass
class NoLogger:
    """logger=none: the report and result.json alone."""


@dataclass
class LoggerSettings:
    """logger=csv, logger=tensorboard.

    Attributes:
        naming: the framework whose metric names are used (rlhf_lightning.tracking.metric_names).
    """

    naming: Literal["trl", "verl", "openrlhf"] = "trl"


@dataclass
class WandbSettings(LoggerSettings):
    """logger=wandb: Weights & Biases; csv and tensorboard have only `naming`, none has no setting.

    Attributes:
        naming: the framework whose metric names are used (rlhf_lightning.tracking.metric_names).
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
