"""Atomic writes of files and folders: write a temporary sibling, fsync, then rename or exchange."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

BESIDE = ".new-"
"""Prefix of a file or folder that is still being written, or that was replaced and is about to go."""
OLD = ".old-"
"""Prefix of a folder that is being replaced, where the file system can't exchange two names."""
_TEMPORARY = re.compile(rf"({re.escape(BESIDE)}|{re.escape(OLD)})(?P<name>.+)\.\d+")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_MODEL_FILES = (".safetensors", ".index.json")
"""Endings of files of which a new model may have other ones than the old: its shards."""
_written: dict[str, int] = {}
"""Inodes of the folders that this process wrote."""


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` everything below a folder, and the folder itself last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_symlink():
            sync(path)
    sync(folder)


def temporary_sibling(path: Path) -> Path:
    """The name under which this process writes what is to be renamed to `path`; `remove_temporaries` knows it again."""
    return path.with_name(f"{BESIDE}{path.name}.{os.getpid()}")


def write_atomic(path: Path, text: str, *, private: bool = False) -> None:
    """Write text as UTF-8, so that the file holds either what it held or all of the new text, whenever the machine stops.

    Args:
        private: readable by its owner only.

    Raises:
        OSError: it can't be written; what it held stays, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync(path.parent)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a temporary folder, flush it, and exchange it with the target: a reader finds all of the old one or all of the new one.

    On Linux the exchange is one call (renameat2), so that one of the two is at the target at every instant. Where the system or the file
    system has no such call the old one is renamed first; after a kill between the two renames `remove_temporaries` brings it back. A link,
    and a folder of another process with files that the new one doesn't have, are renamed to NAME_before_N and not deleted.

    Raises:
        OSError: it can't be written, or the target is a file; the target stays as it was.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder) and not folder.is_dir() and not folder.is_symlink():
        raise FileExistsError(errno.EEXIST, "there is a file of that name, and a folder is to be written", str(folder))
    temporary = temporary_sibling(folder)
    if temporary.exists():  # of an earlier process with the same number
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        write(temporary)
        sync_tree(temporary)
        names = {path.name for path in temporary.iterdir()}
        replaced = _move_to(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder.parent)
    if replaced is not None:
        _retire(replaced, folder, names)
    _written[str(folder.resolve())] = folder.stat().st_ino


def _move_to(new: Path, folder: Path) -> Path | None:
    """Give the new folder its name; returns where the old one is now."""
    if not os.path.lexists(folder):
        new.rename(folder)
        return None
    if exchange(new, folder):
        return new
    old = folder.with_name(f"{OLD}{folder.name}.{os.getpid()}")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    return old


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step of the file system; False where it can't.

    Raises:
        OSError: it can, and failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _retire(old: Path, folder: Path, names: set[str]) -> None:
    """Delete a replaced folder; rename one that may hold more than what this program wrote."""
    is_ours = not old.is_symlink() and old.stat().st_ino == _written.get(str(folder.resolve()))
    if is_ours or not (old.is_symlink() or any(path.name not in names and not path.name.endswith(_MODEL_FILES) for path in old.iterdir())):
        shutil.rmtree(old)
        return
    number = 1
    while os.path.lexists(target := folder.with_name(f"{folder.name}_before_{number}")):
        number += 1
    old.rename(target)
    sync(folder.parent)


def remove_temporaries(folder: Path) -> list[str]:
    """Delete what killed processes left of their writes in a folder and below it; returns the names.

    Nothing may be writing there. A folder that was renamed to be replaced, and wasn't, gets its name back. Links are not followed.
    """
    removed = []
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _TEMPORARY.fullmatch(name)
            if match is None:
                continue
            path = Path(parent, name)
            target = path.with_name(match["name"])
            if name.startswith(OLD) and not os.path.lexists(target):
                path.rename(target)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(name)
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]
    return removed
