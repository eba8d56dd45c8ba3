"""Pretrained models, configs and tokenizers from local folders or the Hub; never runs their code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_lightning.config.model_files import check_model_folder, damaged_tokenizer_file
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.checkpoint_tensors import checkpoint_state, summarize_names, written_shapes
from rlhf_lightning.model.quiet import quiet_transformers
from rlhf_lightning.model.weight_report import check_finite, check_report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_pretrained(auto_class: Any, path: str, what: str, **options: Any) -> Any:
    """`auto_class.from_pretrained(path)` without code and pickles from the folder.

    A model's weights must be exactly those of its class; a trunk (AutoModel) may ignore the folder's output layer.

    Args:
        what: the setting with this value, for messages.

    Raises:
        DataError: a missing, damaged or truncated file; a weight that is missing, unexpected, of another shape or not finite.
    """
    is_model = hasattr(auto_class, "from_config")
    if Path(path).exists():
        check_files(path, what, is_model)
    elif "/" in path and path.startswith((".", "/", "~")):
        raise DataError(f"{what}: no folder {path!r}; give a local Hugging Face folder or a Hub name")
    options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True} if is_model else {}
    try:
        with quiet_transformers():
            loaded = auto_class.from_pretrained(path, trust_remote_code=False, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as cause:  # transformers and tokenizers raise anything for a damaged file
        if "attn_implementation" in options and "attention" in str(cause).lower():
            name = options["attn_implementation"]
            raise ConfigError(f"backbone.attn_implementation={name}: {_describe(cause)}; choose another, or leave it out") from cause
        fault = _describe_misfit(auto_class, Path(path)) if is_model and Path(path).is_dir() else ""
        raise DataError(f"{what}: {path!r} can't be loaded: {fault or _describe(cause)}") from cause
    if not is_model:
        return loaded
    model, report = loaded
    check_report(model, report, f"{what}: {path!r}")
    check_finite(model, f"{what}: {path!r}")
    if getattr(model.config, "rescale_every", 0):
        # RWKV divides weights in eval mode against float16's overflow, and a folder saved then would be divided again on loading.
        model.config.rescale_every = 0
    return model


def check_files(path: str, what: str, needs_weights: bool) -> None:
    """Check a local folder's files. Raises DataError."""
    try:
        check_model_folder(Path(path), needs_weights)
    except DataError as fault:
        raise DataError(f"{what}: {fault}") from fault


def find_file(path: str, name: str) -> Path | None:
    """The path of a file (possibly nested) in a folder or Hub model; None if there is none."""
    if Path(path).is_dir() or path.startswith((".", "/", "~")):
        local = Path(path) / name
        return local if local.is_file() else None
    from transformers.utils import cached_file

    try:
        cached = cached_file(
            path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
    except OSError:  # not a valid Hub name either, which loading the model reports
        return None
    return None if cached is None else Path(str(cached))


def load_tokenizer(path: str, what: str = "tokenizer") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or Hub model.

    Raises:
        DataError: it is missing, damaged, or without a vocabulary.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = load_pretrained(AutoTokenizer, path, what)
    except DataError as fault:
        damage = damaged_tokenizer_file(Path(path))
        if damage is not None:
            raise DataError(f"{what}: {damage}") from fault
        if "instantiate the backend tokenizer" in str(fault):
            raise DataError(f"{what}: {_NO_TOKENIZER.format(path)}") from fault
        raise
    if Path(path).is_dir() and not tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys():
        raise DataError(f"{what}: {_NO_TOKENIZER.format(path)}")
    return tokenizer


_NO_TOKENIZER = (
    "{} has no tokenizer: tokenizer.json, or the vocabulary that its tokenizer_config.json needs, is missing; copy it beside the model"
)


def _describe_misfit(auto_class: Any, folder: Path) -> str:
    """Differences of a folder's tensors from its config's; empty if there are none or unknown."""
    from transformers import AutoConfig

    try:
        with quiet_transformers(), torch.device("meta"):
            twin = auto_class.from_config(AutoConfig.from_pretrained(folder))
            expected = {name: tuple(value.shape) for name, value in checkpoint_state(twin).items()}
        stored = written_shapes(folder)
    except Exception:  # the first error is reported
        return ""
    lost = sorted(expected.keys() - stored.keys())
    resized = sorted(name for name in expected.keys() & stored.keys() if expected[name] != stored[name])
    faults = [f"it lacks {summarize_names(lost)}"] if lost else []
    faults += [f"it holds {summarize_names(resized)} in another shape than config.json describes"] if resized else []
    return "; ".join(faults)


def _describe(cause: Exception) -> str:
    """An exception's text, with its type if the text is short or unspecific."""
    text = str(cause)
    return text if isinstance(cause, OSError | ValueError) and len(text) > 20 else f"{type(cause).__name__}: {text}"
