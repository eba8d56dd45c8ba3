"""Saving a model as a folder for transformers, verified against the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.adapters import has_adapters, merged_state
from rlhf_lightning.model.checkpoint_tensors import expected_shapes, summarize_names, written_shapes
from rlhf_lightning.model.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config and safetensors; adapters are merged into the written weights only.

    Raises:
        DataError: the folder lacks a tensor of the model, or has one that the model's class doesn't have.
    """
    state = {"state_dict": merged_state(model)} if has_adapters(model) else {}
    with quiet_transformers():
        model.save_pretrained(folder, **state)
    check_saved(model, folder)


def check_saved(model: PreTrainedModel, folder: Path) -> None:
    """Check names and shapes of a folder's tensors against those of the model's class and config.

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
        text = "; ".join(f"it {fault} {summarize_names(names)}" for fault, names in faults if names)
        raise DataError(f"{type(model).__name__} was not saved, and the earlier folder stays: the written one is incomplete: {text}")
