"""Pretrained models, configs and tokenizers from local folders or the Hub; never runs their code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_lightning.config.model_files import check_model_folder, damaged_tokenizer_file
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.checkpoint_tensors import checkpoint_state, quiet_transformers, summarize_names, written_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUFFERS = ("position_ids", "inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")
"""Endings of tables in older checkpoints that models compute."""
UNUSED = ("pooler.", "seq_relationship.")
"""Unused parts of BERT's pretraining."""

OTHER_MODALITIES = ("vision", "visual", "image", "audio", "speech", "multi_modal", "mm_projector", "connector", "resampler")
"""Name prefixes of a multimodal model's other parts."""
SCORES = ("score.", "classifier.", "classification_head.", "pre_classifier.", "v_head.", "value_head.", "reward_head.")
"""Name prefixes of a classifier's layers instead of the output layer."""


def check_report(model: PreTrainedModel, report: Mapping[str, Any], where: str) -> None:
    """Reject a model whose weights aren't exactly those of its folder.

    Ignored are a folder's heads for a trunk, parts for images and sound, tables that are computed, and BERT's pooler.

    Args:
        report: from_pretrained's loading info: missing_keys, unexpected_keys and mismatched_keys.
        where: beginning of the message: the setting and the path.

    Raises:
        DataError: the message lists the tensors, with the likely cause.
    """
    missing = sorted(name for name in report["missing_keys"] if not _is_part(name, UNUSED) or not _is_trunk(model))
    mismatched = sorted(report["mismatched_keys"])
    unexpected = sorted(name for name in report["unexpected_keys"] if not _is_ignorable(model, name))
    if not (missing or mismatched or unexpected):
        return
    faults = []
    if missing:
        faults.append(f"it lacks {summarize_names(missing)}")
    if mismatched:
        _, stored, expected = mismatched[0]
        shapes = f"{list(stored)} in the file, {list(expected)} by config.json"
        faults.append(f"it holds {summarize_names([name for name, *_ in mismatched])} in another shape ({shapes})")
    if unexpected:
        faults.append(f"it holds {summarize_names(unexpected)} that the model doesn't have")
    name, cause = type(model).__name__, _cause(model, missing, mismatched, unexpected)
    raise DataError(f"{where} doesn't hold the weights of a {name}: {'; '.join(faults)}. {cause}")


def check_finite(model: PreTrainedModel, where: str) -> None:
    """Reject weights with NaN or infinite numbers. Raises DataError naming the first."""
    for name, parameter in model.named_parameters():
        comparable = parameter.numel() and parameter.is_floating_point() and parameter.element_size() > 1 and not parameter.is_meta
        if comparable and not all(bound.isfinite() for bound in parameter.detach().aminmax()):
            raise DataError(
                f"{where} holds NaN or infinite numbers in {name}: its training diverged, or the file is damaged; take an earlier one"
            )


def _is_trunk(model: PreTrainedModel) -> bool:
    """True for AutoModel's classes, without an output layer."""
    return model.base_model is model and model.get_output_embeddings() is None


def _is_part(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(part) or f".{part}" in name for part in parts)


def _is_ignorable(model: PreTrainedModel, name: str) -> bool:
    """True for a computed table, a part for images or sound, or a head of a trunk's folder."""
    if name.endswith(BUFFERS) or _is_part(name, UNUSED):
        return True
    if any(part.startswith(OTHER_MODALITIES) for part in name.split(".")[:2]):
        return True
    inside = name.startswith(f"{model.base_model_prefix}.") or name.split(".")[0] in dict(model.named_children())
    return _is_trunk(model) and not inside


def _cause(model: PreTrainedModel, missing: list[str], mismatched: list[Any], unexpected: list[str]) -> str:
    """The likely cause, and the remedy."""
    if len(missing) > len(model.state_dict()) / 2 and 2 * len(unexpected) > len(missing):
        return "Its weights are of another architecture than its config.json describes: copy both from the same model"
    if mismatched:
        return "Its config.json describes other sizes than its weights have: copy both from the same model"
    if not any(_is_in_trunk(model, name) for name in [*missing, *unexpected]):
        if any(name.startswith(SCORES) for name in unexpected):
            return "It is a reward model's folder or another classifier's: give the folder of a language model"
        if missing:
            return "It holds a trunk without the layer after it, which another class of models has: give the folder of the complete model"
        return "It was saved by another class of models: give a folder that transformers wrote for this one"
    if missing:
        return "The folder is incomplete: copy or save it again, whole"
    return "Its config.json describes fewer layers than its weights have, or another model: copy both from the same model"


def _is_in_trunk(model: PreTrainedModel, name: str) -> bool:
    """True for a tensor outside the head."""
    if model.base_model is not model:
        return name.startswith(f"{model.base_model_prefix}.")
    output = model.get_output_embeddings()
    heads = [f"{layer}." for layer, module in model.named_modules() if module is output] + list(SCORES)
    return not name.startswith(tuple(heads))


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
