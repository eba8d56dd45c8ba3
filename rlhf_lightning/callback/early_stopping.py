"""End a training whose metric has stopped improving."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register

SMALL_IS_GOOD = ("loss", "kl", "length")
"""Ends of the names of metrics whose smallest value is the best."""


def check_monitor(choices: Any) -> None:
    """Check that a metric of held-out data is measured during the training. Raises ConfigError."""
    monitor = choices.config.callback.early_stopping.monitor
    if str(monitor).startswith("evaluation/") and choices.config.evaluation.get("every") is None:
        raise ConfigError(f"callback.early_stopping.monitor={monitor} is a metric of held-out data: add evaluation.every=10, in steps")


@register("callback", "early_stopping", check=check_monitor)
def early_stopping(
    *,
    monitor: str,
    mode: Literal["min", "max"] | None = None,
    patience: PositiveInt = 3,
    min_delta: NonNegativeFloat = 0.0,
    stopping_threshold: float | None = None,
) -> Any:
    """Lightning's EarlyStopping: end the training when a metric stops improving.

    Args:
        monitor: a metric of metrics.csv, such as evaluation/loss (with evaluation.every) or objective/kl.
        mode: whether the smallest or the largest value is the best; null: the smallest of a loss, a KL or a length.
        patience: values without an improvement until the end.
        min_delta: smallest change that is an improvement.
        stopping_threshold: a value at which the training has reached its aim.
    """
    from rlhf_lightning.callback._early_stopping import EarlyStoppingOnHistory

    chosen = mode or ("min" if monitor.endswith(SMALL_IS_GOOD) else "max")
    return EarlyStoppingOnHistory(monitor, mode=chosen, patience=patience, min_delta=min_delta, stopping_threshold=stopping_threshold)
