"""Sharded training of a model's weights (FSDP2, trainer.strategy=fsdp2).

Outside of a fit each process has the full model. A fit trains a sharded copy, with sharded gradients and optimizer states; at its end the
full model gets the copy's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
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
    """FSDP2 over all processes (Zhao et al. 2023), with checkpoints of full weights in one file.

    Args:
        processes: on all nodes together.
        shard_frozen: also shard the reference and the reward model of PPO.
    """

    def __init__(self, processes: int, shard_frozen: bool = False) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.shard_frozen = shard_frozen

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint, with the extra states of modules that Lightning leaves out.

        Raises:
            KeyError: it lacks weights.
        """
        module, model = self.lightning_module, self.model
        assert module is not None
        assert model is not None
        checkpoint = torch.load(self.broadcast(checkpoint_path), map_location="cpu", mmap=True, weights_only=weights_only)
        missing = {name for name, _ in model.named_parameters()} - checkpoint["state_dict"].keys()
        if missing and module.strict_loading:
            raise KeyError(f"{checkpoint_path} lacks the weights {sorted(missing)[:3]}")
        # Strict loading refuses a checkpoint in which some parameters have made no step, as a policy's whose critic learns first.
        strict, module.strict_loading = module.strict_loading, False
        try:
            rest = super().load_checkpoint(checkpoint_path, weights_only)
        finally:
            module.strict_loading = strict
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            _drop_unsaved_states(model, optimizer, saved["state"])
        for name, part in model.named_modules():
            if (key := f"{name}._extra_state") in checkpoint["state_dict"]:
                part.set_extra_state(checkpoint["state_dict"][key])
        return rest


def _drop_unsaved_states(model: nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str | int, Any]) -> None:
    """Drop the optimizer states that a checkpoint lacks.

    torch fills those of parameters that had made no step with the states of a step without gradients.
    """
    numbered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    named = dict(model.named_parameters())
    stepped = {id(numbered[key] if isinstance(key, int) else named[key]) for key in saved}
    for parameter in numbered:
        if id(parameter) not in stepped:
            optimizer.state.pop(parameter, None)


class Shardable(L.LightningModule):
    """A LightningModule whose model FullySharded can shard during a fit.

    Attributes:
        trained: name of the attribute with the trained model, through whose calls all gradients flow.
        calls: methods of that model that unshard its outermost weights.
    """

    trained: str
    calls: tuple[str, ...] = ("forward",)
    _full_model: tuple[nn.Module, ...] = ()
    """The full model while a sharded copy of it is trained; in a tuple, so that it is no submodule."""

    @property
    def is_sharded(self) -> bool:
        """True during a fit under FullySharded."""
        return bool(self._full_model)

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, FullySharded) and not self.is_sharded:
            self._full_model = (getattr(self, self.trained),)
            setattr(self, self.trained, shard(self._full_model[0], strategy.device_mesh, self.calls))

    def average_scalar_gradients(self) -> None:
        """Average the gradients of scalar parameters, which can't be sharded, over the processes."""
        scalars = [parameter for parameter in getattr(self, self.trained).parameters() if parameter.requires_grad and parameter.dim() == 0]
        for number in scalars if self.is_sharded else ():
            mine = torch.zeros(2, device=number.device)
            if number.grad is not None:
                mine = torch.stack([number.grad.float(), torch.ones_like(number.grad)])
            total, count = all_reduce_sum(mine)
            if count > 0:
                number.grad = (total / world_size()).to(number)

    def on_fit_end(self) -> None:
        if self.is_sharded:
            copy_full_weights(self._full_model[0], getattr(self, self.trained))
            setattr(self, self.trained, self._full_model[0])
            self._full_model = ()


def shard(model: M, mesh: DeviceMesh, calls: tuple[str, ...] = ("forward",)) -> M:
    """A sharded copy of a model, whose layers are unsharded one at a time.

    Args:
        calls: the methods by which it is called, equally often on every rank.
    """
    sharded = copy.deepcopy(model)
    numbers = {parameter for parameter in sharded.parameters() if parameter.dim() == 0}  # not sharded (`average_scalar_gradients`)
    parts: list[nn.Module] = [*transformer_layers(sharded), sharded]
    for part in parts:
        fully_shard(part, mesh=mesh, ignored_params=numbers)
    for call in calls:
        if call != "forward":
            register_fsdp_forward_method(sharded, call)
    return sharded


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The modules that the transformers inside a model declare as not to be split over devices."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names and any(True for _ in module.parameters())]


@contextmanager
def unsharded_weights(model: nn.Module) -> Iterator[None]:
    """Unshard a model inside: each rank may call it and its parts, without gradients, many times."""
    parts: list[Any] = [part for part in model.modules() if isinstance(part, FSDPModule)]
    if not parts:
        yield
        return
    root, *inner = parts
    # As the first forward pass does: a part that runs before it would become the root.
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
    """Copy parameters and buffers of a sharded copy into its model. Collective: call it on every rank."""
    for targets, sources in ((model.parameters(), sharded.parameters()), (model.buffers(), sharded.buffers())):
        for target, source in zip(targets, sources, strict=True):
            target.copy_(full_tensor(source))


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a DTensor; a plain tensor unchanged."""
    gather: Callable[[], torch.Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()
