"""Text files that are whole after a crash: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

BESIDE = ".new-"
"""How the name of a file begins that isn't whole yet; one that a kill left behind may go."""


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str, *, private: bool = False) -> None:
    """Write text as UTF-8, so that the file holds either what it held or all of the new text, whenever the machine stops.

    Args:
        private: readable by its owner only.

    Raises:
        OSError: it can't be written; what it held stays, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{BESIDE}{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    sync(path.parent)
