"""What a run was begun with: its settings and the content of its inputs, held to what it is resumed with."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint.input_digests import inputs_of
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.errors import DataError

FILE = "begun.json"
FORMAT = 1
MAY_CHANGE = ("trainer.", "logger.", "checkpoint.", "ppo.micro_batch")
"""Settings that a resumed run may be told anew: how it is run, not what is learned. A smaller micro-batch has the same gradient, and a run
may have stopped for want of memory."""
ABSENT = "(not set)"
LIBRARIES = ("rlhf-lightning", "torch", "lightning", "transformers", "tokenizers", "peft", "numpy")
"""Those whose version may change the numbers of a run."""


def flat(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested mappings by their dotted names."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def settings_of(config: DictConfig) -> dict[str, Any]:
    """A composed configuration, flat and without secrets, as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(dict(flat(without_secrets(config))), default=str))
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs, by name, as "old -> new"."""
    names = [*before, *(name for name in now if name not in before)]
    return {
        name: f"{before.get(name, ABSENT)} -> {now.get(name, ABSENT)}"
        for name in names
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    }


def may_change(name: str) -> bool:
    return name.startswith(MAY_CHANGE)


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a run's folder; None where there is none.

    Raises:
        DataError: it can't be read.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": dict(found["settings"]), "inputs": dict(found["inputs"]), "versions": dict(found.get("versions", {}))}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{path} can't be read ({type(cause).__name__}: {cause}), and it says what the run was begun with: bring it back from a copy, "
            "or delete it to go on without that comparison"
        ) from cause


def write(config: DictConfig, folder: Path) -> None:
    """Record the settings and the inputs as they are now."""
    resolved = dict(flat(OmegaConf.to_container(config, resolve=True)))
    learned = {name: value for name, value in resolved.items() if not may_change(name) and "._" not in name}
    record = {"format": FORMAT, "versions": _versions(), "settings": settings_of(config), "inputs": inputs_of(learned, folder)}
    write_atomic(folder / FILE, json.dumps(record, indent=1) + "\n")


def version_changes(record: Mapping[str, Any] | None) -> list[str]:
    """The libraries whose version is another than the recorded one, as "torch 2.12.0 -> 2.13.0"."""
    before = {} if record is None else record["versions"]
    return [f"{name} {before[name]} -> {now}" for name, now in _versions().items() if before.get(name, now) != now]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
