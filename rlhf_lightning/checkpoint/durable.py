"""Crash-safe removal of folders, cleaning up after a crash, and errors of a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rlhf_lightning.config.atomic_write import OLD, TEMPORARY
from rlhf_lightning.errors import UserError

REASONS = (*map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)), "PytorchStreamWriter failed", "inline_container.cc")
"""Texts of such errors' messages, whichever library raises them."""


def remove(path: Path) -> None:
    """Remove a file or folder; it is renamed first, so that a half removed one never has its name."""
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
    """Remove files that a killed `write_atomic`, `remove` or save left behind; returns their names."""
    leftovers = sorted(path for path in folder.iterdir() if path.name.startswith((TEMPORARY, OLD)))
    for path in leftovers:
        remove(path)
    return [path.name for path in leftovers]


def disk_error(error: Exception, folder: Path | None = None) -> UserError | None:
    """Translate a disk-full or quota error to a UserError; None for others.

    Args:
        folder: the run's.
    """
    if isinstance(error, UserError):
        return None
    message = next((text for text in map(str, _causes(error)) if any(reason in text for reason in REASONS)), None)
    if message is None:
        return None
    remedy = "start again" if folder is None else f"continue with resume={folder}"
    return UserError(f"disk full or quota exceeded ({message}): make room or lift the limit, then {remedy}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those in whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
