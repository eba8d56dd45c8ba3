"""What a checkpoint consists of: its step, and each file's size and SHA-256; and whether that is what lies on the disk."""

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


class Damaged(Exception):
    """A checkpoint isn't what was saved; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its manifest describes it.

    Attributes:
        serial: counts the saves in a store, for a step that is saved again.
        size: bytes of its files together.
        about: what the one who saved it noted of it.
    """

    folder: Path
    step: int
    serial: int
    size: int
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int]:
        """The newest has the largest: neither clocks nor names say which that is."""
        return self.step, self.serial


def describe(folder: Path, step: int, serial: int, about: Mapping[str, Any]) -> str:
    """The text of the manifest of all files in a folder."""
    files = {path.relative_to(folder).as_posix(): _entry(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    body = {"format": FORMAT, "step": step, "serial": serial, "about": dict(about), "files": files}
    return json.dumps({**body, "sha256": _own_hash(body)}, indent=1)


def read(folder: Path) -> Checkpoint:
    """A checkpoint by its manifest; its files are not looked at.

    Raises:
        Damaged: the manifest is not as it was written.
        DataError: a newer version wrote it.
    """
    body = _body(folder)
    size = sum(entry["size"] for entry in body["files"].values())
    return Checkpoint(folder, body["step"], body["serial"], size, body["about"])


def verify(folder: Path) -> None:
    """Hold every file to its size and SHA-256, as they are on the disk. Raises Damaged naming the first that differs."""
    for name, entry in _body(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        size = path.stat().st_size
        if size != entry["size"]:
            raise Damaged(f"{path} has {size:,} bytes and should have {entry['size']:,}")
        if _entry(path) != entry:
            raise Damaged(f"{path} has another SHA-256 than it was saved with")


def _body(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        hashed = body.pop("sha256")
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise Damaged(f"{path} can't be read ({type(cause).__name__}: {cause})") from None
    if hashed != _own_hash(body):
        raise Damaged(f"{path} has another SHA-256 than it was saved with")
    if body["format"] > FORMAT:
        raise DataError(
            f"{path} is of format {body['format']}, which a newer version wrote, and this one reads format {FORMAT}: go on with that one "
            "(pip install -U rlhf-lightning), or take the folder away to go on from an earlier checkpoint"
        )
    return dict(body)


def _entry(path: Path) -> dict[str, Any]:
    """Size and hash of a file, read from the disk and not from the memory that it was written from, where the system can be told so."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _own_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
