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

TEMPORARY = ".new-"
"""Prefix of a file or folder that is being written, or that was replaced and is about to be deleted."""
OLD = ".old-"
"""Prefix of a folder that is being replaced on a file system that can't exchange two names."""
_TEMPORARY_NAME = re.compile(rf"({re.escape(TEMPORARY)}|{re.escape(OLD)})(?P<name>.+)\.\d+")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_MODEL_FILES = (".safetensors", ".index.json")
"""Endings of weight shards: a new model may have others than the old one."""
_written: dict[str, int] = {}
"""Inodes of the folders that this process wrote."""


def sync(path: Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk."""
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
    """The temporary name for writing `path`, recognised by `remove_temporaries`."""
    return path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}")


def write_atomic(path: Path, text: str, *, private: bool = False) -> None:
    """Write text as UTF-8 atomically: after a crash the file has its old or its new content.

    Args:
        private: readable by its owner only.

    Raises:
        OSError: it can't be written; the old content stays, and no temporary file.
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
    """Write a folder atomically: fill a temporary one, flush it, exchange it with the target.

    On Linux the exchange is one call (renameat2), and one of the two is at the target at every instant. On other systems the old one is
    renamed first, and `remove_temporaries` restores it after a kill between the two renames. A link, and a folder of another process
    with files that the new one doesn't have, are renamed to NAME_before_N and not deleted.

    Raises:
        OSError: it can't be written, or the target is a file; the target stays as it was.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder) and not folder.is_dir() and not folder.is_symlink():
        raise FileExistsError(errno.EEXIST, "a file has the name of the folder to write", str(folder))
    # Fill and flush the temporary folder, then give it the name.
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
    # Delete the folder that it replaced.
    sync(folder.parent)
    if replaced is not None:
        _retire(replaced, folder, names)
    _written[str(folder.resolve())] = folder.stat().st_ino


def _move_to(new: Path, folder: Path) -> Path | None:
    """Rename the new folder to its name; return the path of the old one, if there was one."""
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


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one call; return False on a file system without it.

    Raises:
        OSError: the call failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _retire(old: Path, folder: Path, names: set[str]) -> None:
    """Delete a replaced folder; rename it if it may have files of another program."""
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
    """Delete the temporary files and folders of killed processes below a folder; return their names.

    No process may be writing there. A folder whose replacement was interrupted gets its name back. Links are not followed.
    """
    removed = []
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _TEMPORARY_NAME.fullmatch(name)
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
        folders[:] = [name for name in folders if not _TEMPORARY_NAME.fullmatch(name)]
    return removed
