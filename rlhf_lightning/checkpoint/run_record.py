"""Record of a run's start: its settings, the versions of libraries, and digests of its inputs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from glob import glob
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import without_secrets
from rlhf_lightning.errors import DataError

BUDGET = 256 * 2**20
"""Most bytes read of one input: half a second."""
PIECE = 2**20
MAX_FILES = 10_000
"""Most files of a folder or pattern that are read, in the order of their names."""
RUN_FILE = "begun.json"
"""A file that every run's folder has."""


def input_digests(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """A digest of every file, folder and glob pattern of `paths` that exists.

    A digest is the SHA-256 of names, sizes and contents. Of an input of more than `BUDGET` bytes only evenly spread pieces are read, first
    and last included: another length is always noticed, one changed letter may not be. Skipped are names of the Hub, hidden files, broken
    links, and the folders of other runs.

    Args:
        folder: the run's own, whose files are no inputs.
    """
    run_folder = folder.resolve()
    files = {path: input_files(path, run_folder) for path in sorted(set(paths))}
    return {path: digest(content) for path, content in files.items() if content is not None}


def changed_inputs(before: Mapping[str, str], folder: Path) -> list[str]:
    """Describe each input that has changed since its digest was taken."""
    changes = []
    for path, recorded in before.items():
        files = input_files(path, folder.resolve())
        if files is None:
            changes.append(f"{path} is missing")
        elif digest(files) != recorded:
            changes.append(f"{path} was modified")
    return changes


def input_files(name: str, run_folder: Path) -> dict[str, Path] | None:
    """The files of an input by their relative names; None where nothing exists, or it is the run's own."""
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return None if run_folder in path.resolve().parents else {"": path}
        if path.is_dir():
            return None if run_folder in (path.resolve(), *path.resolve().parents) else dict(_walk(path, run_folder))
        if any(letter in name for letter in "*?["):
            files = [Path(match) for match in sorted(glob(name, recursive=True))[:MAX_FILES]]
            return {str(file): file for file in files if file.is_file() and run_folder not in file.resolve().parents} or None
    except (OSError, ValueError):  # not a valid file name, or not permitted
        return None
    return None


def _walk(folder: Path, run_folder: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for top, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and not _is_run(Path(top) / name, run_folder))
        for name in sorted(names):
            file = Path(top) / name
            if name.startswith(".") or not file.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                return
            yield file.relative_to(folder).as_posix(), file


def _is_run(folder: Path, run_folder: Path) -> bool:
    return folder.resolve() == run_folder or (folder / RUN_FILE).is_file()


def digest(files: Mapping[str, Path]) -> str:
    """The SHA-256 of files, which share `BUDGET`."""
    total = hashlib.sha256()
    pieces = max(2, BUDGET // PIECE // max(1, len(files)))
    for name, file in files.items():
        size = file.stat().st_size
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= pieces * PIECE:
                total.update(hashlib.file_digest(handle, "sha256").digest())
                continue
            for number in range(pieces):
                handle.seek(number * (size - PIECE) // (pieces - 1))
                total.update(handle.read(PIECE))
    return total.hexdigest()


FILE = RUN_FILE
FORMAT = 1
RESUMABLE_SETTINGS = ("trainer.", "logger.", "checkpoint.", "push", "ppo.micro_batch_size")
"""Prefixes of settings that may change on resume: they don't change what is learned. A smaller micro-batch has the same gradient, and a
run may have stopped for want of memory."""
RESULT_SETTINGS = ("checkpoint.monitor", "checkpoint.mode")
"""Those among them that choose the weights that a run leaves."""
ABSENT = "(not set)"
LIBRARIES = ("rlhf-lightning", "torch", "lightning", "transformers", "tokenizers", "peft", "numpy")
"""Libraries whose version may change the numbers of a run."""


def flatten(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested mappings by their dotted names."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flatten(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def flat_settings(config: DictConfig) -> dict[str, Any]:
    """A composed configuration, flat and without secrets, as JSON reads it back."""
    settings: dict[str, Any] = json.loads(json.dumps(dict(flatten(without_secrets(config))), default=str))
    return settings


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The settings that differ, by name, as "old -> new"."""
    names = [*before, *(name for name in now if name not in before)]
    return {
        name: f"{before.get(name, ABSENT)} -> {now.get(name, ABSENT)}"
        for name in names
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    }


def may_change(name: str) -> bool:
    """True for a setting that may differ on resume."""
    return name.startswith(RESUMABLE_SETTINGS) and not name.startswith(RESULT_SETTINGS)


def read(folder: Path) -> dict[str, Any] | None:
    """The record in a run's folder; None without one.

    Raises:
        DataError: it can't be read.
    """
    path = folder / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": dict(record["settings"]), "inputs": dict(record["inputs"]), "versions": dict(record.get("versions", {}))}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{path} can't be read ({type(cause).__name__}: {cause}), and it records how the run was started: restore it from a copy, or "
            "delete it to continue without that comparison"
        ) from cause


def write(config: DictConfig, folder: Path, input_paths: Iterable[str]) -> None:
    """Record the settings and the inputs as they are now.

    Args:
        input_paths: the values of the settings that are paths.
    """
    inputs = input_digests(input_paths, folder)
    record = {"format": FORMAT, "versions": library_versions(), "settings": flat_settings(config), "inputs": inputs}
    write_atomic(folder / FILE, json.dumps(record, indent=1) + "\n")


def version_changes(record: Mapping[str, Any] | None) -> list[str]:
    """The libraries whose version has changed since the record, as "torch 2.12.0 -> 2.13.0"."""
    before = {} if record is None else record["versions"]
    return [f"{name} {before[name]} -> {now}" for name, now in library_versions().items() if before.get(name, now) != now]


@functools.cache
def library_versions() -> dict[str, str]:
    """The installed versions of Python and LIBRARIES."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
