"""LoRA: low-rank adapters beside a model's frozen weights; peft makes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError


def add_adapters(trunk: nn.Module, setting: str, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> None:
    """Put adapters W + alpha/rank · B·A beside linear layers, in place (Hu et al. 2021); everything else is frozen.

    They start as no change (B = 0) and are kept in float32 at least, whatever the weights are in: steps of a training are lost in bfloat16.

    Args:
        setting: the group whose option this is, for messages.
        targets: names of the layers that get one (["q_proj", "v_proj"]), or ["all-linear"].

    Raises:
        ConfigError: peft isn't installed, no layer has such a name, or one is an embedding.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as cause:
        raise ConfigError(f"{setting}=lora needs more packages: pip install 'rlhf-lightning[lora]' ({cause})") from cause
    chosen = "all-linear" if tuple(targets) == ("all-linear",) else list(targets)
    for name, module in trunk.named_modules():
        # An output layer that is tied to the embedding wouldn't follow it.
        if isinstance(module, nn.Embedding) and name.split(".")[-1] in targets:
            raise ConfigError(f"{setting}.targets={list(targets)}: {name} is an embedding; name linear layers")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # GPT-2's Conv1D: peft sets it right by itself
            inject_adapter_in_model(config, trunk)
    except ValueError as cause:
        raise ConfigError(f"{setting}.targets={list(targets)}: {cause}") from cause
    for parameter in trunk.parameters():
        if parameter.requires_grad and parameter.element_size() < 4:
            parameter.data = parameter.data.float()


def has_adapters(module: nn.Module) -> bool:
    """Whether any layer has an adapter beside it."""
    return any(True for _ in _adapted(module))


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Inside, the module computes as if it had no adapters: as it was before they were trained."""
    layers = [layer for _, layer in _adapted(module)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge_adapters(module: nn.Module) -> None:
    """Add the adapters to the weights beside them and leave plain layers, in place."""
    for name, layer in list(_adapted(module)):
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, layer.get_base_layer())
    for part in module.modules():
        vars(part).pop("peft_config", None)  # peft would take the next adapters for a second set


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict that `merge_adapters` would leave; the module stays as it is."""
    state = dict(module.state_dict())
    for name, layer in _adapted(module):
        for key in [key for key in state if key.startswith(f"{name}.")]:
            value = state.pop(key)
            own = key.removeprefix(f"{name}.base_layer.")
            if own == "weight":
                value = (value.float() + sum(layer.get_delta_weight(a) for a in layer.active_adapters)).to(value.dtype)
            if own != key:
                state[f"{name}.{own}"] = value.detach()
    return state


def merged_parameters(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters by name as they would be without adapters beside them, detached; shared ones once."""
    names = [name.replace(".base_layer.", ".") for name, _ in module.named_parameters() if ".lora_" not in name]
    state = merged_state(module)
    return [(name, state[name].detach()) for name in names]


def _adapted(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by name."""
    for name, layer in module.named_modules():
        if hasattr(layer, "get_base_layer") and hasattr(layer, "merge"):
            yield name, layer
