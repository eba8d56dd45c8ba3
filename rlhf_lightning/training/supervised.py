"""The training step that SFT, reward modelling and preference optimisation share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_lightning.optimization.parameters import ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.training.distributed import all_reduce_sum, no_sync, world_size
from rlhf_lightning.training.nonfinite import NonFiniteGuard
from rlhf_lightning.training.periodic_evaluation import Evaluation
from rlhf_lightning.training.settings import SupervisedSettings
from rlhf_lightning.training.sharding import unsharded_weights

MIN_WEIGHT = 1e-8
"""Smallest divisor of a mean: a batch without weight has mean 0."""
HELD_OUT = {"accuracy": "accuracy", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
"""Names of an evaluation's metrics by those of a module."""


class LossSums(NamedTuple):
    """Sums over the examples of one process's batch, or of a micro-batch of it; they add up over both.

    Attributes:
        loss: sum of weight times loss, with its gradient.
        weight: sum of the weights.
        metrics: by name, sum of weight times value and sum of weights.
    """

    loss: Tensor
    weight: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]

    def totals(self) -> Tensor:
        """[1 + metrics, 2] all sums and their weights, the loss first, without gradient."""
        dtype = torch.promote_types(self.loss.dtype, torch.float32)
        pairs = [(self.loss, self.weight), *self.metrics.values()]
        return torch.stack([number.detach().to(self.loss.device, dtype) for pair in pairs for number in pair]).view(-1, 2)


class SupervisedModule(NonFiniteGuard):
    """Minimises the weighted mean of a loss over the examples of each batch, all processes together.

    A batch is what the subclass's loader makes, or a list of micro-batches (`shared_loader`), whose gradients are accumulated.

    Attributes:
        loss_name: of the loss in the history.
    """

    loss_name: str

    def __init__(self, settings: SupervisedSettings, steps: int) -> None:
        super().__init__()
        self.settings, self.steps = settings, steps
        self._accumulates = False

    def loss_sums(self, batch: Any) -> LossSums:
        """The sums of a micro-batch."""
        raise NotImplementedError

    def prepare_step(self, micro_batches: list[Any]) -> None:
        """Compute what the losses of a step share, before the first of its micro-batches."""

    def step_metrics(self, means: dict[str, Tensor]) -> dict[str, float]:
        """The history's entry of a step from the means of its loss and metrics."""
        return {name: mean.item() for name, mean in means.items()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        micro_batches = batch if isinstance(batch, list) else [batch]
        self._accumulates = len(micro_batches) > 1
        if self._accumulates:
            self.zero_grad()
        self.prepare_step(micro_batches)
        # All but the last: their gradients, of losses over batch_size, are in the parameters.
        totals = [self._backward(micro_batch) for micro_batch in micro_batches[:-1]]
        sums = self.loss_sums(micro_batches[-1])
        # Over the processes.
        sum_of, weight = all_reduce_sum(torch.stack([*totals, sums.totals()]).sum(0)).unbind(1)
        weight = weight.clamp(min=MIN_WEIGHT)
        self.history.append(self.step_metrics(dict(zip((self.loss_name, *sums.metrics), sum_of / weight, strict=True))))
        # The processes' gradients are averaged, and each has its part of the weight.
        loss = sums.loss * world_size() / weight[0]
        return loss + self._rescale(totals, weight[0]) if totals else loss

    def _backward(self, micro_batch: Any) -> Tensor:
        """Accumulate a micro-batch's gradient, divided by batch_size until the batch's weight is known."""
        with no_sync(self.trainer.strategy.model):
            sums = self.loss_sums(micro_batch)
            with torch.autocast(self.device.type, enabled=False):
                self.trainer.strategy.backward(sums.loss * world_size() / self.settings.batch_size, None)
        return sums.totals()

    def _rescale(self, totals: list[Tensor], weight: Tensor) -> Tensor:
        """Divide the accumulated gradient by the batch's weight; returns its part of the loss."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.settings.batch_size / weight)
        return torch.stack(totals).sum(0)[0, 0] * world_size() / weight

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Keep the gradients of micro-batches, which Lightning would zero after the training step."""
        if not self._accumulates:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def held_out_sums(self, batch: Any) -> LossSums:
        """The sums of a batch of held-out data."""
        return self.loss_sums(batch)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        """Means of the loss and the metrics of HELD_OUT over held-out batches.

        Collective: call it on every rank.
        """
        totals: Tensor | int = 0
        names: tuple[str, ...] = ()
        with unsharded_weights(getattr(self, self.trained)):
            self.eval()
            for batch in batches:
                batch = batch.to(self.device)
                with self.trainer.precision_plugin.forward_context():
                    self.prepare_step([batch])
                    sums = self.held_out_sums(batch)
                names, totals = (self.loss_name, *sums.metrics), totals + sums.totals()
        if not names:
            return Evaluation({}, {})
        sum_of, weight = all_reduce_sum(torch.as_tensor(totals)).unbind(1)
        means = {name: sums / count for name, sums, count in zip(names, sum_of.tolist(), weight.tolist(), strict=True) if count}
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        return Evaluation({label: means[name] for name, label in {self.loss_name: "loss", **HELD_OUT}.items() if name in means}, {})

    def texts_of(self, batch: Any) -> list[Any]:
        return [text for micro_batch in (batch if isinstance(batch, list) else [batch]) for text in self.read_texts(micro_batch)]

    def read_texts(self, micro_batch: Any) -> list[Any]:
        """A micro-batch's texts, for a person to read."""
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """The trained parameters, in groups with a learning rate each."""
        return [ParameterGroup("model", trained_parameters(self), self.learning_rate)]

    @property
    def learning_rate(self) -> float:
        return self.settings.learning_rate or self.settings.default_rates.new

    def configure_optimizers(self) -> Any:
        groups = [group for group in self.parameter_groups() if group.members]
        # One kernel for all of Adam's arithmetic; on a GPU it unscales gradients itself, which Lightning's clipping under 16-mixed refuses.
        is_fused = all(member.parameter.device.type == "cpu" for group in groups for member in group.members)
        return self.optimization.configure(TrainedParameters(groups, self.optimization_defaults, is_fused), self.steps)
