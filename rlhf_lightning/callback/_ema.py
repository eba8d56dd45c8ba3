"""A moving average of the trained weights."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rlhf_lightning.training.periodic_evaluation import trained_weights
from rlhf_lightning.training.sharding import full_tensor


class WeightAverage(L.Callback):
    """Averages the trained weights by torch's function.

    Evaluations and the training's result have the average, the training itself doesn't.

    Attributes:
        average: by name, sharded as the weights are.
    """

    def __init__(self, decay: float, every: int) -> None:
        self.update = get_ema_multi_avg_fn(decay)
        self.every = every
        self.average: dict[str, Tensor] = {}
        self.loaded: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The full average. Collective: call it on every rank."""
        return {"average": {name: full_tensor(weight).cpu() for name, weight in (self.average or self.loaded).items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict["average"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._prepare(pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.fit_loop.total_batch_idx + 1) % self.every == 0:
            self.update(list(self.average.values()), [weight for _, weight in trained_weights(pl_module)], 1)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the weights their average; also where a finished training is resumed."""
        self._prepare(pl_module)
        self._swap(pl_module)

    @torch.no_grad()
    def _prepare(self, module: L.LightningModule) -> None:
        """Begin with the weights, or with the average of the checkpoint."""
        if self.average:
            return
        for name, weight in trained_weights(module):
            average = self.loaded.get(name, weight).detach().to(weight.device)
            if isinstance(weight, DTensor) and not isinstance(average, DTensor):
                average = distribute_tensor(average, weight.device_mesh, weight.placements)
            self.average[name] = average.clone()

    @torch.no_grad()
    def _swap(self, module: L.LightningModule) -> None:
        for name, weight in trained_weights(module):
            current = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name] = current
