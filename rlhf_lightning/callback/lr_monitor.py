"""Log the learning rates."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.registry import register


@register("callback", "lr_monitor")
def lr_monitor(*, log_weight_decay: bool = False) -> Any:
    """Log the learning rate of each parameter group, as lr/GROUP beside the metrics of a step.

    Lightning's LearningRateMonitor writes rows of its own, which a resumed run would lack.

    Args:
        log_weight_decay: also weight_decay/GROUP.
    """
    from rlhf_lightning.callback._lr_monitor import LearningRates

    return LearningRates(log_weight_decay)
