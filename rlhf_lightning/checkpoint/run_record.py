"""Record of a run's start: its settings, the versions of libraries, and digests of its inputs."""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlhf_lightning.checkpoint.input_digests import RUN_FILE, input_digests
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.errors import DataError

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
