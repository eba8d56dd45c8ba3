"""Folders that are whole after a crash, and what a crash leaves."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rlhf_lightning.config.atomic_write import BESIDE, OLD
from rlhf_lightning.errors import UserError

REASONS = (*map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)), "PytorchStreamWriter failed", "inline_container.cc")
"""What is in the message of such an error, whichever library hands it on."""


def remove(path: Path) -> None:
    """Take a file or folder away. It is renamed first, so that a half removed one isn't met under its name."""
    hidden = path if path.name.startswith(".") else path.with_name(f"{OLD}{path.name}")
    if hidden != path:
        if hidden.exists():
            remove(hidden)
        os.rename(path, hidden)
    if hidden.is_dir() and not hidden.is_symlink():
        shutil.rmtree(hidden)
    else:
        hidden.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[str]:
    """Take away what `write_atomic`, `remove` or a save left when the process was killed; returns the names."""
    found = sorted(path for path in folder.iterdir() if path.name.startswith((BESIDE, OLD)))
    for path in found:
        remove(path)
    return [path.name for path in found]


def refused(error: Exception, folder: Path | None = None) -> UserError | None:
    """What to tell of an error by which the disk, or a limit on it, didn't take what a run writes; None of another error.

    Args:
        folder: the run's.
    """
    if isinstance(error, UserError):
        return None
    said = next((text for text in map(str, _behind(error)) if any(reason in text for reason in REASONS)), None)
    if said is None:
        return None
    onward = "start again" if folder is None else f"go on by resume={folder}"
    return UserError(f"the disk took no more of what the run writes ({said}): make room or lift the limit, then {onward}")


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those in whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
