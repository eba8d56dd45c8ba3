"""Evaluation every few steps of a training, and the weights of its best one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from rlhf_lightning.training.ending import planned_steps
from rlhf_lightning.training.sharding import full_tensor

PREFIX = "evaluation/"


class Evaluation(NamedTuple):
    """Metrics by name, without PREFIX, and texts with values, for the report; equal on every rank."""

    metrics: Mapping[str, float]
    measured: dict[str, Any]


class PeriodicEvaluation(L.Callback):
    """Evaluates every `every` steps and after the last one.

    The metrics are in the module's history, the loggers and trainer.callback_metrics as evaluation/NAME; the other callbacks see the hooks
    of a validation, so that Lightning's EarlyStopping works with check_on_train_epoch_end=False. Random states and modes of modules are
    restored: the training is bitwise that without evaluation.

    Args:
        evaluate: evaluates the module as it is. Collective: called on every rank.
        monitor: metric by which the best weights are kept; None keeps the last ones.
        is_max: whether the largest is the best, else the smallest.
        log: receives a line for each evaluation. show: receives its step and what was measured.

    Attributes:
        best: step, value, weights on the CPU, and what was measured; empty without `monitor` and before the first evaluation.
        last: step and what was measured.
    """

    def __init__(
        self,
        every: int,
        evaluate: Callable[[], Evaluation],
        monitor: str | None = None,
        is_max: bool = True,
        log: Callable[[str], None] = lambda text: None,
        show: Callable[[int, Mapping[str, Any]], None] = lambda step, measured: None,
    ) -> None:
        self.every, self.evaluate, self.monitor, self.is_max, self.print_line, self.show = every, evaluate, monitor, is_max, log, show
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.last = state_dict["best"], state_dict["last"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, planned = trainer.fit_loop.total_batch_idx + 1, planned_steps(trainer)
        if step % self.every and step != planned:
            return
        self._call(trainer, pl_module, "on_validation_start", "on_validation_epoch_start")
        with isolate_rng(), preserved_modes(pl_module):
            evaluation = self.evaluate()
        metrics = {PREFIX + name: value for name, value in evaluation.metrics.items()}
        history: list[dict[str, float]] = pl_module.history  # type: ignore[assignment]
        history[-1] |= metrics
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        pl_module.log_dict(metrics, logger=False, on_step=True, on_epoch=False)
        values = ", ".join(f"{name} {value:.4g}" for name, value in evaluation.metrics.items())
        self.print_line(f"evaluation after {step} of {planned} steps: {values}")
        self.show(step, evaluation.measured)
        self.last = {"step": step, "measured": evaluation.measured}
        self._keep_best(pl_module, metrics, evaluation)
        self._call(trainer, pl_module, "on_validation_epoch_end", "on_validation_end")

    def _call(self, trainer: L.Trainer, module: L.LightningModule, *hooks: str) -> None:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for hook in hooks:
            for callback in callbacks:
                getattr(callback, hook)(trainer, module)

    def _keep_best(self, module: L.LightningModule, metrics: Mapping[str, float], evaluation: Evaluation) -> None:
        """Copy the trained weights if the monitored metric is the best so far."""
        value = metrics.get(self.monitor or "", math.nan)
        best = self.best.get("value", -math.inf if self.is_max else math.inf)
        if (value > best) if self.is_max else (value < best):
            weights = {name: full_tensor(weight.detach()).cpu().clone() for name, weight in trained_weights(module)}
            self.best = {**self.last, "value": value, "weights": weights}

    @property
    def of_result(self) -> dict[str, Any]:
        """The evaluation of the weights that the training leaves after `restore_best`."""
        return self.best or self.last

    @torch.no_grad()
    def restore_best(self, module: nn.Module) -> bool:
        """Give the module its best weights; returns whether they are other ones than its last."""
        if not self.best or self.best["step"] == self.last["step"]:
            return False
        for name, weight in trained_weights(module):
            weight.copy_(self.best["weights"][name])
        return True


def trained_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The trained weights by name."""
    return ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)


@contextmanager
def preserved_modes(module: nn.Module) -> Iterator[None]:
    """Restore the train or eval mode of each part of a module."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
