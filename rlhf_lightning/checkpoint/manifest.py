"""Manifest of a checkpoint: its step, and the size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import DataError

NAME = "manifest.json"
FORMAT = 1


class DamagedCheckpoint(Exception):
    """A checkpoint differs from what was saved; the message names the file and the difference."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its manifest describes it.

    Attributes:
        serial: counts the saves in a store, for a step that is saved again.
        size: bytes of its files together.
        metadata: recorded by the caller of the save.
    """

    folder: Path
    step: int
    serial: int
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int]:
        """Sort key, largest for the newest; neither clocks nor names matter."""
        return self.step, self.serial


def describe(folder: Path, step: int, serial: int, metadata: Mapping[str, Any]) -> str:
    """The text of the manifest of all files in a folder."""
    files = {path.relative_to(folder).as_posix(): _entry(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    body = {"format": FORMAT, "step": step, "serial": serial, "about": dict(metadata), "files": files}
    return json.dumps({**body, "sha256": _body_hash(body)}, indent=1)


def read(folder: Path) -> Checkpoint:
    """A checkpoint by its manifest, without reading its files.

    Raises:
        DamagedCheckpoint: the manifest differs from what was written.
        DataError: a newer version wrote it.
    """
    body = _body(folder)
    size = sum(entry["size"] for entry in body["files"].values())
    return Checkpoint(folder, body["step"], body["serial"], size, body["about"])


def verify(folder: Path) -> None:
    """Compare every file on the disk with its size and SHA-256.

    Raises:
        DamagedCheckpoint: for the first difference.
    """
    for name, entry in _body(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{path} is missing")
        size = path.stat().st_size
        if size != entry["size"]:
            raise DamagedCheckpoint(f"{path} has {size:,} bytes and should have {entry['size']:,}")
        if _entry(path) != entry:
            raise DamagedCheckpoint(f"{path} has another SHA-256 than it was saved with")


def _body(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        recorded = body.pop("sha256")
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise DamagedCheckpoint(f"{path} can't be read ({type(cause).__name__}: {cause})") from None
    if recorded != _body_hash(body):
        raise DamagedCheckpoint(f"{path} has another SHA-256 than it was saved with")
    if body["format"] > FORMAT:
        raise DataError(
            f"{path} is of format {body['format']}, which a newer version wrote, and this one reads format {FORMAT}: continue with "
            "that one (pip install -U rlhf-lightning), or move the folder away to continue from an earlier checkpoint"
        )
    return dict(body)


def _entry(path: Path) -> dict[str, Any]:
    """Size and hash of a file, read from the disk instead of the page cache where the system allows it."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _body_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
