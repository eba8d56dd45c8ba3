"""The learning rates among a step's metrics."""

from __future__ import annotations

from typing import Any

import lightning as L


class LearningRates(L.Callback):
    """Adds the learning rates of a step to its metrics."""

    def __init__(self, log_weight_decay: bool) -> None:
        self.names = {"lr": "lr", **({"weight_decay": "weight_decay"} if log_weight_decay else {})}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        metrics: Any = pl_module.callback_metrics
        for number, group in enumerate(groups):
            metrics |= {f"{label}/{group.get('name', number)}": float(group[key]) for key, label in self.names.items() if key in group}
