"""Lightning's EarlyStopping on the metrics of steps and evaluations."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping

from rlhf_lightning.errors import ConfigError

EVALUATION = "evaluation/"
"""Prefix of the metrics of evaluation.every."""


class EarlyStoppingOnHistory(EarlyStopping):
    """Checks the monitored metric after each step, or each evaluation, that gives it.

    Raises:
        ConfigError: the first step, or the first evaluation, doesn't give it.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.monitor.startswith(EVALUATION):
            self._check(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor.startswith(EVALUATION):
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check nothing: steps and evaluations are checked."""

    def _check(self, trainer: L.Trainer, module: Any) -> None:
        metrics: dict[str, float] = module.history[-1]
        if self.monitor not in metrics:
            names = ", ".join(sorted(metrics))
            raise ConfigError(
                f"callback.early_stopping.monitor={self.monitor} is no metric of this training, which has: {names}; those of held-out data "
                f"({EVALUATION}...) come with evaluation.every"
            )
        trainer.callback_metrics[self.monitor] = torch.tensor(metrics[self.monitor])
        self._run_early_stopping_check(trainer)
