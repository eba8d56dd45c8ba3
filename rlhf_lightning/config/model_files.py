"""Check the files of a model's folder before loading: complete, readable, and in a supported format.

Reads names, sizes and headers only, and imports no library, so that a command is rejected at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import DataError

CONFIG, CARD = "config.json", "reward_model.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SMALL_JSON = (CONFIG, CARD, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", INDEX)
TOKENIZER_JSON = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TEXT_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of files of configs and tokenizers. Weights in other formats may be absent."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER = 100_000_000
"""Bytes of a safetensors header, the library's own limit."""


def check_model_folder(folder: Path, needs_weights: bool = False) -> None:
    """Reject a local folder that no model can be loaded from.

    Args:
        needs_weights: reject one without weights, too; a plan needs none.

    Raises:
        DataError: naming the file, and how to mend it: a run's folder instead of its model's, a Git LFS pointer, a damaged, truncated,
            missing or unreadable file, pickled weights, adapters without their model.
    """
    _check_readable(folder)
    names = sorted(entry.name for entry in folder.iterdir())
    # Of a sentence encoder, modules.json names the folder inside that holds the model.
    if not {CONFIG, CARD, "modules.json"} & set(names):
        raise DataError(_without_model(folder, names))
    for file in (folder / name for name in names if name.endswith(TEXT_FILES)):
        if file.is_symlink() and not file.exists():
            raise DataError(f"{file} is a link to a file that doesn't exist: download or copy the folder again")
        if file.is_file():
            check_no_pointer(file)
    for name in SMALL_JSON:
        if name in names:
            read_json_object(folder / name)
    if CONFIG in names:
        check_config_type(folder / CONFIG)
        _check_weights(folder, names, needs_weights)


def check_config_type(file: Path) -> None:
    """Reject a config.json that names no architecture. Raises DataError."""
    config = read_json_object(file)
    if not isinstance(config.get("model_type"), str):
        raise DataError(
            f"{file} names no model_type: it isn't a transformers config, or is incomplete; copy it again from the model's source"
        )


def check_no_pointer(file: Path) -> None:
    """Reject the pointer file that Git writes without Git LFS. Raises DataError."""
    try:
        with file.open("rb") as content:
            start = content.read(len(LFS_POINTER))
    except OSError as cause:
        raise DataError(f"{file} can't be read: {cause.strerror or cause}") from cause
    if start == LFS_POINTER:
        raise DataError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs install` and `git lfs pull` in {file.parent}")


def read_json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError: it can't be read, isn't JSON, or holds something else."""
    if not file.is_file():
        raise DataError(f"{file} must be a file" if file.exists() else f"{file} doesn't exist")
    check_no_pointer(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise DataError(f"{file} can't be read: {cause.strerror or cause}") from cause
    except (ValueError, RecursionError) as cause:
        state = "is empty" if file.stat().st_size == 0 else f"isn't valid JSON: {cause}"
        raise DataError(f"{file} {state}; copy it again from the model's source") from cause
    if not isinstance(content, dict):
        raise DataError(f"{file} must hold a JSON object, and holds {json.dumps(content)[:40]}")
    return content


def check_safetensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file by tensor name. Raises DataError for a damaged or truncated file."""
    if not file.is_file():
        raise DataError(f"{file} must be a file" if file.exists() else f"{file} doesn't exist")
    check_no_pointer(file)
    size, again = file.stat().st_size, "copy or download it again"
    if size < 8:
        raise DataError(f"{file} is empty: {again}" if size == 0 else f"{file} is truncated, {size} bytes long: {again}")
    # Read the header.
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length)) if length <= min(MAX_HEADER, size - 8) else None
        ends = [] if header is None else [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    except OSError as cause:
        raise DataError(f"{file} can't be read: {cause.strerror or cause}") from cause
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as cause:
        raise DataError(f"{file} isn't a safetensors file, or its header is damaged: {again}") from cause
    if header is None:
        raise DataError(f"{file} is truncated inside its header, or isn't a safetensors file: {again}")
    # Compare the size with the end of the last tensor.
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        state = "truncated" if size < expected else "damaged"
        raise DataError(f"{file} is {state}: {size:,} bytes, and its header describes {expected:,}; {again}")
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def damaged_tokenizer_file(folder: Path) -> str | None:
    """The defect of a folder's tokenizer files after a failed load; None if they are readable."""
    try:
        for name in TOKENIZER_JSON:
            if (folder / name).exists():
                read_json_object(folder / name)
    except DataError as fault:
        return str(fault)
    return None


def _check_readable(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder} is a file: give the folder that holds it")
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder} can't be read: permission denied")


def _without_model(folder: Path, names: Iterable[str]) -> str:
    """The message for a folder without a config: a run's folder, adapters, or something else."""
    models = [path for pattern in (CONFIG, CARD) for depth in ("*/", "*/*/") for path in folder.glob(depth + pattern)]
    inside = sorted({str(path.parent) for path in models if not any(part.startswith(".") for part in path.relative_to(folder).parts)})
    if inside:
        return f"{folder} holds no model itself, but these of its folders do: {', '.join(inside[:6])}; give one of them"
    if "adapter_config.json" in names:
        return _adapters(folder)
    return f"{folder} holds no model: it has no {CONFIG}"


def _adapters(folder: Path) -> str:
    return (
        f"{folder} holds adapters (adapter_config.json), not a whole model: merge them into their base model first, by peft's "
        "merge_and_unload() and save_pretrained()"
    )


def _check_weights(folder: Path, names: list[str], needed: bool) -> None:
    """Check every file of weights that the model is loaded from."""
    if "adapter_config.json" in names:
        raise DataError(_adapters(folder))
    if WEIGHTS in names:
        check_safetensors(folder / WEIGHTS)
    elif INDEX in names:
        _check_shards(folder)
    elif not needed or "transformers_weights" in read_json_object(folder / CONFIG):
        return
    elif any(name.endswith(".safetensors") and name.startswith("model-") for name in names):
        raise DataError(f"{folder} holds shards of weights and no {INDEX}, which lists them: copy the folder again, with all its files")
    elif pickles := [name for name in names if name.endswith(PICKLES) and "model" in name]:
        raise DataError(
            f"{folder} holds its weights in {pickles[0]}, a format that can run code when it is read and is never read here: convert it in "
            "an environment that you trust, by transformers' from_pretrained and save_pretrained, which writes safetensors"
        )
    else:
        raise DataError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}")


def _check_shards(folder: Path) -> None:
    index = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise DataError(f"{folder / INDEX} has no weight_map from tensors to files: copy it again from the model's source")
    files = sorted(set(index.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(files)} shards of its weights: {', '.join(missing[:4])}; copy them too")
    for name in files:
        tensors = check_safetensors(folder / name)
        lost = [tensor for tensor, file in index.items() if file == name and tensor not in tensors]
        if lost:
            raise DataError(f"{folder / name} lacks {len(lost)} tensors that {INDEX} lists ({lost[0]}): the two are of different models")
