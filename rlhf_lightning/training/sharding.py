"""Weights shared out between processes (FSDP2, trainer.strategy=fsdp2): each keeps a part, and a layer's parts meet while it runs.

Outside of a fit every process holds its models whole. In a fit a copy of what is trained is shared out, with its gradients and the
optimiser's states; at the end the whole model takes the copy's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from rlhf_lightning.training.distributed import all_reduce_sum, world_size

M = TypeVar("M", bound=nn.Module)


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all processes (Zhao et al. 2023). A checkpoint is one file of whole weights, as under the other strategies.

    Args:
        processes: on all nodes together.
        frozen_too: share out the reference and the reward model of PPO as well.
    """

    def __init__(self, processes: int, frozen_too: bool = False) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.frozen_too = frozen_too

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Lightning's, and the states of modules that aren't tensors, which it passes over: of a KL control, of running statistics."""
        rest = super().load_checkpoint(checkpoint_path, weights_only)
        state = torch.load(self.broadcast(checkpoint_path), map_location="cpu", mmap=True, weights_only=weights_only)["state_dict"]
        assert self.model is not None
        for name, module in self.model.named_modules():
            if (key := f"{name}._extra_state") in state:
                module.set_extra_state(state[key])
        return rest


class Shardable(L.LightningModule):
    """A LightningModule whose model's weights FullySharded may share out while it is fitted.

    Attributes:
        trained: the attribute with the model that is trained; all work that has gradients goes through its calls.
        calls: methods of that model, each of which brings the outermost weights together.
    """

    trained: str
    calls: tuple[str, ...] = ("forward",)
    _whole: tuple[nn.Module, ...] = ()
    """What is trained, whole, while a copy of it is trained in shares."""

    @property
    def sharded(self) -> bool:
        """Whether each process has its share now."""
        return bool(self._whole)

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, FullySharded) and not self.sharded:
            self._whole = (getattr(self, self.trained),)
            setattr(self, self.trained, shard(self._whole[0], strategy.device_mesh, self.calls))

    def average_numbers(self) -> None:
        """Average over the processes the gradients of what can't be shared out, single numbers, as those of the shares are averaged."""
        whole = [parameter for parameter in getattr(self, self.trained).parameters() if parameter.requires_grad and parameter.dim() == 0]
        for number in whole if self.sharded else ():
            mine = torch.zeros(2, device=number.device)
            if number.grad is not None:
                mine = torch.stack([number.grad.float(), torch.ones_like(number.grad)])
            total, known = all_reduce_sum(mine)
            if known > 0:
                number.grad = (total / world_size()).to(number)

    def on_fit_end(self) -> None:
        if self.sharded:
            copy_full_weights(self._whole[0], getattr(self, self.trained))
            setattr(self, self.trained, self._whole[0])
            self._whole = ()


def shard(model: M, mesh: DeviceMesh, calls: tuple[str, ...] = ("forward",)) -> M:
    """A copy of a model of which each process of the mesh keeps its part; layers come together one at a time.

    Args:
        calls: the methods by which it is called, on every process as often as on the others.
    """
    sharded = copy.deepcopy(model)
    numbers = {parameter for parameter in sharded.parameters() if parameter.dim() == 0}  # every process has them (`average_numbers`)
    parts: list[nn.Module] = [*layers(sharded), sharded]
    for part in parts:
        fully_shard(part, mesh=mesh, ignored_params=numbers)
    for call in calls:
        if call != "forward":
            register_fsdp_forward_method(sharded, call)
    return sharded


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the transformers inside a model: what each of them says mustn't be split over devices."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names and any(True for _ in module.parameters())]


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every process holds all weights of a model and may call it, or its parts, as often as it likes, without gradients."""
    parts: list[Any] = [part for part in model.modules() if isinstance(part, FSDPModule)]
    if not parts:
        yield
        return
    root, *inner = parts
    # What runs first would else be taken for the outermost module. The first pass through it does the same.
    root._get_fsdp_state()._lazy_init()
    for part in inner:
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()


@torch.no_grad()
def copy_full_weights(model: nn.Module, sharded: nn.Module) -> None:
    """Give a model the parameters and buffers of its sharded copy; all processes together."""
    for own, other in ((model.parameters(), sharded.parameters()), (model.buffers(), sharded.buffers())):
        for kept, part in zip(own, other, strict=True):
            kept.copy_(full_tensor(part))


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whole, of which each process may have a part."""
    gather: Callable[[], torch.Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()
