"""Numbers that went wrong: an update whose loss or gradient isn't finite is not applied, its batch is written aside, and a run of them ends
the training."""

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
from rlhf_lightning.training.distributed import all_reduce_sum
from rlhf_lightning.training.sharding import Shardable, full_tensor

IN_A_ROW = 3
"""So many updates one after the other that couldn't be applied end the training."""
WRITTEN = 10
"""Batches of a training that are written aside; later ones are only counted."""
FOLDER = "bad_batches"


@dataclass(frozen=True)
class Aside:
    """Where a training's bad batches are written, and how it is said."""

    folder: Path
    training: str
    log: Callable[[str], None] = lambda text: None

    def write(self, place: str, about: Mapping[str, Any], batch: Any) -> str:
        """A readable .json, and the batch's tensors beside it as .safetensors; returns where they stand, or why they don't."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors_in(batch)}
        file = self.folder / f"{self.training}_{place}.json"
        shown = {**about, "tensors": {name: summary(value) for name, value in tensors.items()}}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(plain(shown), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            save_file(tensors, file.with_suffix(".safetensors"))
        except OSError as cause:
            return f"its batch couldn't be written to {file}: {cause}"
        return f"its batch is in {file}"


class NonFiniteGuard(Shardable):
    """A training that applies an update only where its loss and its gradient are finite on all processes.

    A dropped update leaves the weights, the optimiser's state and the schedule of the learning rate as they were; the next batch follows.
    Three in a row end the training. Under 16-mixed a gradient that overflows its scale is the scaler's to mend, and isn't counted
    until the scale is down to 1.
    DeepSpeed holds the gradients itself, so that its updates can't be dropped: there the first loss that isn't finite ends the training.

    Attributes:
        history: the metrics of each step; bad_updates among them is the number of dropped ones so far.
        bad_updates, bad_in_a_row: dropped so far, and since the last that was applied.
        applied: whether the last update was.
        aside: where bad batches are written; None writes none.
        advice: what usually helps, for the message that ends the training.
    """

    counters: tuple[str, ...] = ("history", "bad_updates", "bad_in_a_row")
    advice = "lower the learning rate"

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.bad_updates = self.bad_in_a_row = 0
        self.aside: Aside | None = None
        self.applied = True
        self._batch: Any = None
        self._loss = torch.zeros(())

    def texts_of(self, batch: Any) -> list[Any]:
        """A batch's texts, for a person to read."""
        return []

    def batch_metrics(self, batch: Any) -> dict[str, Any]:
        """What else tells why a batch went wrong."""
        return {}

    def checked_grad_norm(self, loss: Tensor) -> Tensor | None:
        """The gradient's norm where loss and norm are finite on all processes, which must ask together. None: drop this update (`drop`).

        Args:
            loss: this process's, whose gradient is there.
        """
        self.average_numbers()
        norm = total_norm(parameter.grad for parameter in self.parameters() if parameter.grad is not None)
        self.applied = not bool(all_reduce_sum((~(loss.isfinite() & norm.isfinite())).float()) > 0)
        self.bad_in_a_row = 0 if self.applied else self.bad_in_a_row
        return norm if self.applied else None

    def drop(self, loss: Tensor, batch: Any) -> None:
        """Let the optimiser pass over every parameter, count it and write the batch aside; all processes together.

        Raises:
            UserError: it is the third in a row.
        """
        gradients = {name: parameter.grad for name, parameter in self.named_parameters() if parameter.grad is not None}
        norm, first = total_norm(gradients.values()).item(), _first_bad(gradients.items())
        self.zero_grad()  # an optimiser has no step for what has no gradient
        self.bad_updates += 1
        self.bad_in_a_row += 1
        step = self.trainer.fit_loop.total_batch_idx + 1
        what = f"step {step}: the loss is {loss.item():g}, the gradient's norm {norm:g}{f', first at {first}' if first else ''}"
        about = {"step": step, "loss": loss.item(), "gradient_norm": norm, "first_parameter_with_a_bad_gradient": first}
        what += self.of_weights() + self._write_aside(about, batch)
        if self.bad_in_a_row >= (1 if _keeps_gradients(self.trainer.strategy) else IN_A_ROW):
            raise UserError(
                f"{self.bad_in_a_row} updates in a row had a loss or a gradient that isn't finite and were not applied, the last at {what}"
                f"; {self.advice}"
            )
        if self.aside is not None and self.bad_updates <= WRITTEN:
            self.aside.log(f"the update isn't applied: {what}")

    def check_weights(self) -> None:
        """Refuse weights that nothing can be computed with; all processes together.

        Raises:
            UserError: a weight isn't finite, or its square is beyond float32.
        """
        wrong = self.of_weights()
        if wrong:
            raise UserError(f"after step {self.trainer.fit_loop.total_batch_idx + 1} nothing is saved{wrong}; {self.advice}")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, loss: Tensor) -> None:
        self._loss = loss.detach()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Where Lightning steps the optimiser: between the backward pass and the step."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        loss, batch, self._batch = self._loss / scale, self._batch, None
        if self.checked_grad_norm(loss) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif scale <= 1 or not bool(all_reduce_sum((~loss.isfinite()).float()) == 0):
            self.drop(loss, batch)
        self.log_step()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.applied:
            super().lr_scheduler_step(scheduler, metric)

    def log_step(self) -> None:
        """Log the newest metrics of the history."""
        metrics = self.history[-1]
        metrics["bad_updates"] = float(self.bad_updates)
        for logger in self.loggers:
            logger.log_metrics(metrics, step=len(self.history))

    def on_train_end(self) -> None:
        if self.bad_updates and self.aside is not None:
            self.aside.log(f"{self.aside.training}: {self.bad_updates} updates had a loss or a gradient that isn't finite: not applied")

    def _write_aside(self, about: dict[str, Any], batch: Any) -> str:
        """A clause that says where the batch now stands."""
        if self.aside is None or self.bad_updates > WRITTEN:
            return ""
        shown = {"training": self.aside.training, "process": self.trainer.global_rank, **about, **self.batch_metrics(batch)}
        place = f"step_{about['step']}_bad_{self.bad_updates}_rank_{self.trainer.global_rank}"
        return "; " + self.aside.write(place, {**shown, "texts": self.texts_of(batch)}, batch)

    def of_weights(self) -> str:
        """A clause for a message, where the weights themselves aren't finite (of all processes, which must ask together)."""
        # Not those in eight bits or fewer, of which there is no norm.
        weights = {name: weight for name, weight in self.named_parameters() if weight.is_floating_point() and weight.itemsize > 1}
        if not bool(all_reduce_sum((~total_norm(weights.values()).isfinite()).float()) > 0):
            return ""
        return f"; the weights themselves aren't finite, the first are {_first_bad(weights.items()) or 'on another process'}"


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all elements of tensors, whole or shared out between processes; then all of them must ask."""
    whole: list[Tensor] = []
    shared: list[Tensor] = []
    for tensor in tensors:
        (shared if hasattr(tensor, "full_tensor") else whole).append(tensor.detach())
    norms = [full_tensor(nn.utils.get_total_norm(part)) for part in (whole, shared) if part]
    return norms[0] if len(norms) == 1 else torch.stack(norms).norm() if norms else torch.zeros(())


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale gradients of this norm down to max_norm, as torch.nn.utils.clip_grads_with_norm_; also those shared out between processes."""
    gradients = [_own(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a record, of records in it, of mappings and lists, by name: "tokens.ids"."""
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
        yield from tensors_in(part, f"{name}.{key}" if name else str(key))


def summary(tensor: Tensor) -> dict[str, Any]:
    """Its shape and what its finite elements span, and how many aren't finite."""
    finite = tensor[tensor.isfinite()]
    spans = [finite.min().item(), finite.max().item()] if finite.numel() else []
    return {"shape": list(tensor.shape), "from_to": spans, "not_finite": tensor.numel() - finite.numel()}


def plain(value: Any) -> Any:
    """Numbers that JSON hasn't got as their names: "nan", "inf"."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _first_bad(named: Iterable[tuple[str, Tensor]]) -> str:
    """The first whose part on this process isn't finite, or too large to compute with; "" for none."""
    for name, tensor in named:
        if not bool(_own(tensor.detach()).norm().isfinite()):
            return name
    return ""


def _own(tensor: Any) -> Any:
    """This process's part of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _keeps_gradients(strategy: Any) -> bool:
    from lightning.pytorch.strategies import DeepSpeedStrategy

    return isinstance(strategy, DeepSpeedStrategy)
