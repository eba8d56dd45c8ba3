"""Lock a folder: one run, and one trainer, at a time.

Own code rather than filelock: that keeps its file after release, can't probe without taking the lock, and without flock falls back to a
marker that outlives its process.
"""

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
REMEDY = "give this run a folder of its own (hydra.run.dir)"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, on this and on other hosts that share the disk.

    The system releases the lock when its process dies. The file names the holder; the file of a killed process locks nothing.

    Raises:
        ConfigError: another process has the lock, or the folder can't be written.
    """
    with lock_file(folder / NAME, REMEDY):
        yield


@contextmanager
def lock_file(path: Path, remedy: str) -> Iterator[None]:
    """Hold the lock file `path`, removed at the end.

    Raises:
        ConfigError: another process holds it; with the remedy.
    """
    handle = _acquire(path, remedy)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def check_free(folder: Path) -> None:
    """Reject a folder that another process has locked. Raises ConfigError."""
    path = folder / NAME
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        _flock(handle, path, fcntl.LOCK_SH, REMEDY)
    finally:
        os.close(handle)


def _acquire(path: Path, remedy: str) -> int:
    """Acquire the lock; return the open file that has it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            raise ConfigError(f"{path.parent} can't be written ({cause.strerror}): {remedy}") from cause
        try:
            _flock(handle, path, fcntl.LOCK_EX, remedy)
            if _is_at(handle, path):
                os.truncate(handle, 0)
                os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open file still has its name: the holder deletes it before it releases the lock."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _flock(handle: int, path: Path, kind: int, remedy: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{path.parent if path.name == NAME else path} is in use: {_holder(handle)} works there; wait for it or end it, or {remedy}"
        ) from None
    except OSError as cause:
        raise ConfigError(
            f"{path}: this file system has no locks ({cause.strerror}), which keep two runs out of one folder: choose a run folder on "
            "another one (hydra.run.dir)"
        ) from cause


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
