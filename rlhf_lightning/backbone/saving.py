"""A model's folder as transformers reads it, compared with the model before it counts as saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf_lightning.backbone.adapters import has_adapters, merged_names, merged_state
from rlhf_lightning.backbone.loading import quiet_transformers, some_of
from rlhf_lightning.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shapes = Mapping[str, tuple[int, ...]]


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config and safetensors, adapters merged into the weights that are written; the model keeps them.

    Raises:
        DataError: the folder lacks a tensor of the model, or holds one that the model's class doesn't have.
    """
    state = {"state_dict": merged_state(model)} if has_adapters(model) else {}
    with quiet_transformers():
        model.save_pretrained(folder, **state)
    check_saved(model, folder)


def check_saved(model: PreTrainedModel, folder: Path) -> None:
    """Compare names and shapes of a folder's tensors with those that the model's class writes for its config.

    Raises:
        DataError: they differ.
    """
    expected, written = expected_shapes(model), written_shapes(folder)
    faults = [
        ("lacks", sorted(expected.keys() - written.keys())),
        ("holds, unknown to the model,", sorted(written.keys() - expected.keys())),
        ("holds in another shape", sorted(name for name in expected.keys() & written.keys() if expected[name] != written[name])),
    ]
    if any(names for _, names in faults):
        text = "; ".join(f"it {fault} {some_of(names)}" for fault, names in faults if names)
        raise DataError(f"{type(model).__name__} was not saved, and what was saved before stays: what was written isn't complete: {text}")


def expected_shapes(model: PreTrainedModel) -> Shapes:
    """Names and shapes of the tensors that the model's class writes for its config, without those of parts that the model dropped."""
    twin_class: Any = type(model)
    with quiet_transformers(), torch.device("meta"):
        twin = twin_class._from_config(model.config, dtype=model.dtype)
    if (conversions := getattr(model, "_weight_conversions", None)) is not None:
        twin._weight_conversions = conversions
    own = merged_names(model)
    state = {name: value for name, value in twin.state_dict().items() if name in own}
    return {name: tuple(value.shape) for name, value in checkpoint_state(twin, state).items()}


def written_shapes(folder: Path) -> Shapes:
    """Names and shapes of the tensors in a folder's safetensors, by their headers."""
    from transformers.modeling_utils import load_state_dict

    files = sorted(folder.glob("model*.safetensors"))
    return {name: tuple(value.shape) for file in files for name, value in load_state_dict(str(file), map_location="meta").items()}


def checkpoint_state(model: PreTrainedModel, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model's tensors by their names in a checkpoint: tied ones once, fused experts apart, adapters merged.

    Args:
        state: a state dict of the model; None takes its own.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    state = merged_state(model) if state is None else state
    saved = {name: value for name, value in state.items() if name not in (model._keys_to_ignore_on_save or ())}
    converted: dict[str, Tensor] = revert_weight_conversion(model, remove_tied_weights_from_state_dict(saved, model))
    return converted
