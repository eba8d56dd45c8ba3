"""Checks of transformers' loading report: a model's weights must be exactly those of its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.checkpoint_tensors import summarize_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
