"""Files that are whole after a crash: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` of everything below a folder, and of the folder itself last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def write_whole(path: Path, text: str) -> None:
    """A text file that holds either what it held or all of the new text, whenever the machine stops.

    Raises:
        OSError: it can't be written; what it held stays, and nothing is left beside it.
    """
    beside = path.with_name(f".new-{path.name}")
    try:
        beside.write_text(text, encoding="utf-8")
        sync(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove(path: Path) -> None:
    """Take a file or folder away. It is renamed first, so that a half removed one isn't met under its name."""
    hidden = path if path.name.startswith(".") else path.with_name(f".old-{path.name}")
    if hidden != path:
        if hidden.exists():
            remove(hidden)
        os.rename(path, hidden)
    if hidden.is_dir() and not hidden.is_symlink():
        shutil.rmtree(hidden)
    else:
        hidden.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[str]:
    """Take away what `write_whole`, `remove` or a save left when the process was killed; returns the names."""
    found = sorted(path for path in folder.iterdir() if path.name.startswith((".new-", ".old-")))
    for path in found:
        remove(path)
    return [path.name for path in found]
