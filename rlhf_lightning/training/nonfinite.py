"""Skip updates with a non-finite loss or gradient, dump their batches, and stop after three in a row."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import UserError
from rlhf_lightning.optimization.parameters import OptimizationDefaults
from rlhf_lightning.training.distributed import all_reduce_sum
from rlhf_lightning.training.optimizer import Optimization
from rlhf_lightning.training.sharding import Shardable, full_tensor

MAX_SKIPS_IN_A_ROW = 3
"""Skipped updates in a row that end the training."""
MAX_DUMPS = 10
"""Batches of a training that are dumped; later ones are only counted."""
FOLDER = "bad_batches"


@dataclass(frozen=True)
class BatchDump:
    """Writes a training's bad batches into a folder, and logs them."""

    folder: Path
    training: str
    log: Callable[[str], None] = lambda text: None

    def write(self, name: str, record: Mapping[str, Any], batch: Any) -> str:
        """Write a record and the batch's tensors; returns a clause with the path or the error."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in named_tensors(batch)}
        file = self.folder / f"{self.training}_{name}.json"
        content = {**record, "tensors": {key: summarise(value) for key, value in tensors.items()}}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(to_json(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            save_file(tensors, file.with_suffix(".safetensors"))
        except OSError as cause:
            return f"its batch couldn't be written to {file}: {cause}"
        return f"its batch is in {file}"


class NonFiniteGuard(Shardable):
    """Applies an update only if its loss and its gradient are finite on all processes.

    A skipped update leaves weights, optimizer state and learning-rate schedule as they were; the next batch follows. Three in a row end
    the training. Under 16-mixed the scaler handles a gradient that overflows, which is counted only once the scale is down to 1.
    DeepSpeed owns the gradients, so that its updates can't be skipped: the first non-finite loss ends the training.

    Attributes:
        history: the metrics of each step; bad_updates among them is the number of skipped updates so far.
        callback_metrics: what callbacks add to the metrics of the current step.
        bad_updates, bad_in_a_row: skipped so far, and since the last applied update.
        applied: whether the last update was applied.
        batch_dump: writes bad batches; None writes none.
        advice: the usual remedy, for the message that ends the training.
        optimization: makes the optimizer and the schedule.
        optimization_defaults: of their settings.
    """

    counters: tuple[str, ...] = ("history", "bad_updates", "bad_in_a_row")
    advice = "lower the learning rate"
    optimization = Optimization()
    optimization_defaults = OptimizationDefaults()

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.callback_metrics: dict[str, float] = {}
        self.bad_updates = self.bad_in_a_row = 0
        self.batch_dump: BatchDump | None = None
        self.applied = True
        self._batch: Any = None
        self._loss = torch.zeros(())

    def texts_of(self, batch: Any) -> list[Any]:
        """The texts of a batch, for its dump."""
        return []

    def batch_metrics(self, batch: Any) -> dict[str, Any]:
        """Further values for a batch's dump."""
        return {}

    def checked_grad_norm(self, loss: Tensor) -> Tensor | None:
        """The gradient's norm, or None if the update must be skipped. Collective: call it on every rank.

        Args:
            loss: of this process, after its backward pass.
        """
        self.average_scalar_gradients()
        norm = total_norm(parameter.grad for parameter in self.parameters() if parameter.grad is not None)
        self.applied = not bool(all_reduce_sum((~(loss.isfinite() & norm.isfinite())).float()) > 0)
        self.bad_in_a_row = 0 if self.applied else self.bad_in_a_row
        return norm if self.applied else None

    def skip_update(self, loss: Tensor, batch: Any) -> None:
        """Drop the gradients, count the update and dump its batch. Collective: call it on every rank.

        Raises:
            UserError: too many in a row.
        """
        gradients = {name: parameter.grad for name, parameter in self.named_parameters() if parameter.grad is not None}
        norm, first = total_norm(gradients.values()).item(), _first_non_finite(gradients.items())
        self.zero_grad()  # an optimiser has no step for what has no gradient
        self.bad_updates += 1
        self.bad_in_a_row += 1
        step = self.trainer.fit_loop.total_batch_idx + 1
        summary = f"step {step}: the loss is {loss.item():g}, the gradient's norm {norm:g}{f', first at {first}' if first else ''}"
        record = {"step": step, "loss": loss.item(), "gradient_norm": norm, "first_parameter_with_a_bad_gradient": first}
        summary += self.non_finite_weights() + self._dump(record, batch)
        if self.bad_in_a_row >= (1 if _owns_gradients(self.trainer.strategy) else MAX_SKIPS_IN_A_ROW):
            raise UserError(
                f"{self.bad_in_a_row} updates in a row had a loss or a gradient that isn't finite and were not applied, the last at "
                f"{summary}; {self.advice}"
            )
        if self.batch_dump is not None and self.bad_updates <= MAX_DUMPS:
            self.batch_dump.log(f"the update isn't applied: {summary}")

    def check_weights(self) -> None:
        """Check that the weights are finite. Collective: call it on every rank.

        Raises:
            UserError: a weight isn't finite, or its square is beyond float32.
        """
        clause = self.non_finite_weights()
        if clause:
            raise UserError(f"after step {self.trainer.fit_loop.total_batch_idx + 1} nothing is saved{clause}; {self.advice}")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, loss: Tensor) -> None:
        self._loss = loss.detach()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Check and clip the gradients before Lightning steps the optimizer."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        loss, batch, self._batch = self._loss / scale, self._batch, None
        if self.checked_grad_norm(loss) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif scale <= 1 or not bool(all_reduce_sum((~loss.isfinite()).float()) == 0):
            self.skip_update(loss, batch)
        self.log_step()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.applied:
            super().lr_scheduler_step(scheduler, metric)

    def log_step(self) -> None:
        """Log the metrics of the last step."""
        metrics = self.history[-1]
        metrics |= {"bad_updates": float(self.bad_updates), **self.callback_metrics}
        self.callback_metrics = {}
        for logger in self.loggers:
            logger.log_metrics(metrics, step=len(self.history))

    def on_train_end(self) -> None:
        if self.bad_updates and self.batch_dump is not None:
            self.batch_dump.log(
                f"{self.batch_dump.training}: {self.bad_updates} updates had a loss or a gradient that isn't finite: not applied"
            )

    def _dump(self, record: dict[str, Any], batch: Any) -> str:
        """Dump the batch; returns a clause with its path."""
        if self.batch_dump is None or self.bad_updates > MAX_DUMPS:
            return ""
        content = {"training": self.batch_dump.training, "process": self.trainer.global_rank, **record, **self.batch_metrics(batch)}
        name = f"step_{record['step']}_bad_{self.bad_updates}_rank_{self.trainer.global_rank}"
        return "; " + self.batch_dump.write(name, {**content, "texts": self.texts_of(batch)}, batch)

    def non_finite_weights(self) -> str:
        """Name the first non-finite weights in a clause; empty for none. Collective: call it on every rank."""
        # Weights in eight bits or fewer have no norm.
        weights = {name: weight for name, weight in self.named_parameters() if weight.is_floating_point() and weight.itemsize > 1}
        if not bool(all_reduce_sum((~total_norm(weights.values()).isfinite()).float()) > 0):
            return ""
        return f"; the weights themselves aren't finite, the first are {_first_non_finite(weights.items()) or 'on another process'}"


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Global L2 norm of tensors and DTensors. Collective: call it on every rank."""
    plain: list[Tensor] = []
    sharded: list[Tensor] = []
    for tensor in tensors:
        (sharded if hasattr(tensor, "full_tensor") else plain).append(tensor.detach())
    norms = [full_tensor(nn.utils.get_total_norm(part)) for part in (plain, sharded) if part]
    return norms[0] if len(norms) == 1 else torch.stack(norms).norm() if norms else torch.zeros(())


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale gradients of a known norm down to max_norm, as torch's clip_grads_with_norm_; also DTensors."""
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors inside a dataclass, mapping or list, by path ("tokens.ids")."""
    if isinstance(value, Tensor):
        yield name or "batch", value
        return
    parts: Mapping[str, Any] = {}
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        parts = value
    elif isinstance(value, list):
        parts = dict(zip(map(str, range(len(value))), value, strict=True))
    for key, part in parts.items():
        yield from named_tensors(part, f"{name}.{key}" if name else str(key))


def summarise(tensor: Tensor) -> dict[str, Any]:
    """Shape, range of the finite elements, and number of non-finite ones."""
    finite = tensor[tensor.isfinite()]
    spans = [finite.min().item(), finite.max().item()] if finite.numel() else []
    return {"shape": list(tensor.shape), "from_to": spans, "not_finite": tensor.numel() - finite.numel()}


def to_json(value: Any) -> Any:
    """Replace numbers that JSON lacks by strings ("nan", "inf")."""
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _first_non_finite(named: Iterable[tuple[str, Tensor]]) -> str:
    """Name of the first tensor with a non-finite norm on this process; "" for none."""
    for name, tensor in named:
        if not bool(_local(tensor.detach()).norm().isfinite()):
            return name
    return ""


def _local(tensor: Any) -> Any:
    """This process's part of a DTensor; a plain tensor unchanged."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _owns_gradients(strategy: Any) -> bool:
    from lightning.pytorch.strategies import DeepSpeedStrategy

    return isinstance(strategy, DeepSpeedStrategy)
