"""Names and shapes of the tensors in a model's checkpoints and in a folder, and verified saving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf_lightning.config.model_files import check_safetensors
from rlhf_lightning.errors import DataError
from rlhf_lightning.model.adapters import has_adapters, merged_names, merged_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' warnings and progress bars inside the context."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


Shapes = Mapping[str, tuple[int, ...]]


def checkpoint_state(model: PreTrainedModel, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A model's tensors by checkpoint name: tied ones once, fused experts separate, adapters merged.

    Args:
        state: a state dict of the model; default its current one.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    state = merged_state(model) if state is None else state
    saved = {name: value for name, value in state.items() if name not in (model._keys_to_ignore_on_save or ())}
    converted: dict[str, Tensor] = revert_weight_conversion(model, remove_tied_weights_from_state_dict(saved, model))
    return converted


def expected_shapes(model: PreTrainedModel) -> Shapes:
    """Names and shapes that the model's class writes for its config, without parts the model dropped."""
    twin_class: Any = type(model)
    with quiet_transformers(), torch.device("meta"):
        twin = twin_class._from_config(model.config, dtype=model.dtype)
    if (conversions := getattr(model, "_weight_conversions", None)) is not None:
        twin._weight_conversions = conversions
    names = merged_names(model)
    state = {name: value for name, value in twin.state_dict().items() if name in names}
    return {name: tuple(value.shape) for name, value in checkpoint_state(twin, state).items()}


def written_shapes(folder: Path) -> Shapes:
    """Names and shapes in a folder's safetensors headers. Raises DataError for a damaged file."""
    files = sorted(folder.glob("model*.safetensors"))
    return {name: tuple(header["shape"]) for file in files for name, header in check_safetensors(file).items()}


def summarize_names(names: Iterable[str], limit: int = 4) -> str:
    """The number of tensors, with the names of the first few."""
    names = list(names)
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''} ({', '.join(names[:limit])}{more})"


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
