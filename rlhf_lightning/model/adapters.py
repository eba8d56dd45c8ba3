"""LoRA: low-rank adapters for a model's frozen weights, by peft."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError, import_extra
from rlhf_lightning.model.load_options import restore_quantized

ALL_LINEAR = "all-linear"
UNMATCHED_PATTERN = r"The following (rank|alpha)_pattern keys did not match"
"""peft's warning about its pattern for fused experts, which it matches against modules only."""


def add_adapters(
    trunk: nn.Module,
    setting: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    rank_stabilized: bool = False,
    dora: bool = False,
) -> None:
    """Add adapters W + alpha/rank · B·A to linear layers, in place (Hu et al. 2021), and freeze the rest.

    They start at B = 0 and are in float32 at least, whatever the weights' dtype: small updates are lost in bfloat16.
    Fused experts of a mixture ([experts, out, in] in one parameter) get one adapter each where peft maps them: in Mixtral, Qwen3-MoE
    and models of the same layout.

    Args:
        setting: the group of this option, for messages.
        dropout: on the adapters' inputs; fused experts have none.
        targets: names of the layers (["q_proj", "v_proj"]), or ["all-linear"].
        rank_stabilized: the scale is alpha/sqrt(rank) (Kalajdzievski 2023).
        dora: learn the magnitude of each output beside its direction (Liu et al. 2024).

    Raises:
        ConfigError: peft isn't installed, no layer matches, one is an embedding, or one shares its weight with another layer.
    """
    for name, module in trunk.named_modules():
        # An output layer that is tied to the embedding wouldn't follow it.
        if isinstance(module, nn.Embedding) and name.split(".")[-1] in targets:
            raise ConfigError(f"{setting}.targets={list(targets)}: {name} is an embedding; name linear layers")
    try:
        options = {"r": rank, "lora_alpha": alpha, "use_rslora": rank_stabilized, "use_dora": dora}
        _inject(trunk, setting, ALL_LINEAR if tuple(targets) == (ALL_LINEAR,) else list(targets), options)
        skipped = _skipped_layers(trunk, targets)
        if skipped:  # in a wrapper: peft renames targets by the config of a mixture
            _inject(nn.ModuleDict({"trunk": trunk}), setting, [f"trunk.{name}" for name in skipped], options)
    except (ValueError, NotImplementedError) as cause:
        raise ConfigError(f"{setting}.targets={list(targets)}: {cause}") from cause
    _check_untied(trunk, f"{setting}.targets={list(targets)}")
    for _, layer in adapter_layers(trunk):
        if dropout and not hasattr(layer, "parameter_name"):
            layer.lora_dropout.update({adapter: nn.Dropout(dropout) for adapter in layer.lora_dropout})
    for parameter in trunk.parameters():
        if parameter.requires_grad and parameter.element_size() < 4:
            parameter.data = parameter.data.float()


def _inject(model: nn.Module, setting: str, targets: str | list[str], options: dict[str, Any]) -> None:
    peft = import_extra("peft", f"{setting}=lora", "lora")
    # Dropout is set afterwards: peft takes none for parameters of fused experts.
    excluded = _special_layers(model) if targets == ALL_LINEAR else None
    config = peft.LoraConfig(lora_dropout=0.0, target_modules=targets, exclude_modules=excluded, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # GPT-2's Conv1D: peft corrects it
        warnings.filterwarnings("ignore", message=UNMATCHED_PATTERN)
        peft.inject_adapter_in_model(config, model)


def _special_layers(model: nn.Module) -> list[str] | None:
    """Linear layers that can't have an adapter: routers, and layers whose weight Mamba's kernels read."""
    routers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and is_special(module)]
    reads_weights = "mamba" in str(getattr(getattr(model, "config", None), "model_type", ""))
    fused = [name for name, _ in model.named_modules() if name.endswith(".out_proj")] if reads_weights else []
    return routers + fused or None


def is_special(layer: nn.Linear) -> bool:
    return any(word in type(layer).__name__ for word in ("Router", "Grouped"))


def train_modules(model: nn.Module, setting: str, names: Sequence[str]) -> None:
    """Train modules in full beside the adapters, in place.

    They are copies, which `without_adapters` switches off.

    Args:
        setting: the group of this option, for messages.
        names: of modules, or their last parts (["lm_head", "embed_tokens"]).

    Raises:
        ConfigError: no module has such a name, its weights are in half precision, or another module shares them.
    """
    owners = _owners(model)
    for name in names:
        message = f"{setting}.modules_to_save={list(names)}"
        matches = [path for path, _ in model.named_modules() if path == name or path.endswith(f".{name}")]
        if not matches:
            raise ConfigError(f"{message}: {type(model).__name__} has no module {name!r}; its parts are named by their modules' attributes")
        for path in matches:
            module = model.get_submodule(path)
            for parameter in module.parameters():
                others = sorted(owner for owner in owners[id(parameter)] if owner != path and not owner.startswith(f"{path}."))
                if others:
                    raise ConfigError(f"{message}: {path} shares its weight with {', '.join(others)}, which would not follow")
                if parameter.element_size() < 4:
                    raise ConfigError(f"{message}: small updates of its {parameter.dtype} weights are lost: add backbone.dtype=float32")
            _replace(model, path, ModulesToSave(module))


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


class ModulesToSave(nn.Module):
    """A trained copy of a module, and the frozen original, which runs where adapters are switched off."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.original_module = module.requires_grad_(False)
        self.trained_module = copy.deepcopy(module).requires_grad_(True)
        self.is_enabled = True

    def enable_adapters(self, enabled: bool) -> None:
        self.is_enabled = enabled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (self.trained_module if self.is_enabled else self.original_module)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """The attributes of the module in use, such as its weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            parts = self.__dict__.get("_modules", {})
            return getattr(parts.get("trained_module" if self.__dict__.get("is_enabled") else "original_module"), name)


def _skipped_layers(trunk: nn.Module, targets: Sequence[str]) -> list[str]:
    """Targeted linear layers of a mixture of experts that peft left out.

    peft takes `gate_proj` and the like for names of fused experts, also in dense layers and shared experts.
    """
    adapted = dict(adapter_layers(trunk))
    if not any(hasattr(layer, "parameter_name") for layer in adapted.values()):
        return []
    output: Any = getattr(trunk, "get_output_embeddings", lambda: None)()
    inside = tuple(f"{name}." for name in adapted)
    linear = [name for name, module in trunk.named_modules() if isinstance(module, nn.Linear) and module is not output]
    plain = [name for name in linear if name not in adapted and not name.startswith(inside)]
    return [name for name in plain if tuple(targets) == (ALL_LINEAR,) or name.endswith(tuple(f".{target}" for target in targets))]


def _check_untied(trunk: nn.Module, setting: str) -> None:
    """Reject adapters on a weight that another layer shares: the merged weight would apply to one alone."""
    owners = _owners(trunk)
    adapted = dict(adapter_layers(trunk))
    for name, layer in adapted.items():
        names = {_plain_name(owner, adapted) for owner in owners[id(_base_parameter(layer))]}
        others = sorted(str(owner) for owner in names - {_plain_name(name, adapted)})
        if others:
            raise ConfigError(f"{setting}: {name} shares its weight with {', '.join(others)}, which would not follow; name other layers")


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """The names of the modules with each parameter, by its id."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return owners


def has_adapters(module: nn.Module) -> bool:
    """True if any layer has an adapter."""
    return any(True for _ in adapter_layers(module))


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Disable the adapters inside the context."""
    layers = [layer for _, layer in _switched_layers(module)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Add the adapters to their weights and restore plain layers, in place."""
    restore_quantized(module)
    # Innermost first: the adapters of two parameters of one layer are nested.
    for name, layer in reversed(list(adapter_layers(module))):
        _base_parameter(layer).data = _merged_weight(layer)
        _replace(module, name, layer.base_layer)
    for name, layer in list(_switched_layers(module)):
        _replace(module, name, layer.trained_module)
    for part in module.modules():
        vars(part).pop("peft_config", None)  # else peft takes later adapters for a second set


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict after `merge_adapters`, without changing the module."""
    adapted = dict(adapter_layers(module, remove_duplicate=False))
    switched = dict(_switched_layers(module, remove_duplicate=False))
    state = {name: value for key, value in module.state_dict().items() if (name := _plain_name(key, switched)) is not None}
    merged: dict[int, Tensor] = {}  # by layer: transformers recognizes tied layers by their one tensor
    for name, layer in adapted.items():
        if id(layer) not in merged:
            merged[id(layer)] = _merged_weight(layer)
        state[f"{_plain_name(name, switched)}.{_parameter_name(layer)}"] = merged[id(layer)]
    return state


def merged_names(module: nn.Module) -> set[str]:
    """The names in `merged_state`."""
    adapted = dict(_switched_layers(module, remove_duplicate=False))
    return {name for key in module.state_dict() if (name := _plain_name(key, adapted)) is not None}


def adapter_layers(module: nn.Module, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
    """Names and layers with an adapter, outermost first."""
    for name, layer in _switched_layers(module, remove_duplicate):
        if not isinstance(layer, ModulesToSave):
            yield name, layer


def _switched_layers(module: nn.Module, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
    """Names and layers that `without_adapters` switches, modules trained in full among them."""
    for name, layer in module.named_modules(remove_duplicate=remove_duplicate):
        if isinstance(layer, ModulesToSave) or (hasattr(layer, "get_base_layer") and hasattr(layer, "merge")):
            yield name, layer


def _plain_name(name: str, adapted: Container[str]) -> str | None:
    """A module's or tensor's name in the model without adapters; None for an adapter's part."""
    parts, plain = name.split("."), []
    for i, part in enumerate(parts):
        if ".".join(parts[:i]) not in adapted:
            plain.append(part)
        elif part not in ("base_layer", "trained_module"):
            return None
    return ".".join(plain)


def _parameter_name(layer: Any) -> str:
    """The name of the parameter that an adapter changes: the weight, except for fused experts."""
    return str(getattr(layer, "parameter_name", "weight"))


def _base_parameter(layer: Any) -> nn.Parameter:
    parameter: nn.Parameter = getattr(layer.get_base_layer(), _parameter_name(layer))
    return parameter


def _merged_weight(layer: Any) -> Tensor:
    """W + alpha/rank · B·A, with DoRA's magnitudes, added in float32 at least, in the weight's precision."""
    weight = _base_parameter(layer).detach()
    for adapter in layer.active_adapters:
        if (variant := getattr(layer, "lora_variant", {}).get(adapter)) is not None:
            merged_by_variant: Tensor = variant.merge_safe(layer, adapter, weight.clone())
            return merged_by_variant
    total = weight.to(torch.promote_types(weight.dtype, torch.float32))
    merged: Tensor = (total + sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)).to(weight.dtype)
    return merged
