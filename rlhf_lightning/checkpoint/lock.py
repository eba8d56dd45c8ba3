"""One run, and one trainer, in a folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_lightning.errors import ConfigError

NAME = "lock.json"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder, on this and on other hosts that share the disk.

    The system itself frees the lock when its process dies, however it dies. The file says who holds it; one that a killed process left
    behind holds nobody up.

    Raises:
        ConfigError: another process holds it, or the folder can't be written.
    """
    path = folder / NAME
    handle = _taken(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def check_free(folder: Path) -> None:
    """Refuse a folder whose lock another process has. Raises ConfigError."""
    path = folder / NAME
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        _take(handle, path, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _taken(path: Path) -> int:
    """The open file that holds the lock."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            raise ConfigError(
                f"{path.parent}: a run can't be kept there ({cause.strerror}): give it a folder that can be written (hydra.run.dir)"
            ) from cause
        try:
            _take(handle, path, fcntl.LOCK_EX)
            if _is_at(handle, path):
                os.truncate(handle, 0)
                os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the file is still the one of that name: its holder takes it away before the lock is free."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _take(handle: int, path: Path, kind: int) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{path.parent} is in use: {_holder(handle)} works there; wait for it or end it, or give this run a folder of its own "
            "(hydra.run.dir)"
        ) from None
    except OSError as cause:
        raise ConfigError(
            f"{path}: this file system has no locks ({cause.strerror}), which keep two runs out of one folder: choose a run folder on "
            "another one (hydra.run.dir)"
        ) from cause


def _holder(handle: int) -> str:
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return f"process {said['pid']} on {said['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
