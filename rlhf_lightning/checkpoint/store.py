"""Crash-safe checkpoint store: one complete checkpoint always exists."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_lightning.checkpoint.durable import remove, remove_leftovers
from rlhf_lightning.checkpoint.lock import NAME as LOCK
from rlhf_lightning.checkpoint.manifest import NAME, Checkpoint, DamagedCheckpoint, describe, read, verify
from rlhf_lightning.config.atomic_write import sync, sync_tree, write_atomic
from rlhf_lightning.errors import ConfigError, DataError, UserError

INDEX = "index.json"
"""Lists the checkpoints that should exist, so that a missing one is noticed."""
_STEP = re.compile(r"step_\d+(\.\d+)?")
"""The name of a checkpoint's folder."""


class CheckpointStore:
    """Saves a checkpoint in a staging folder, verifies it, and only then removes an older one.

    One process writes at a time (checkpoint.lock). Each checkpoint is a folder with its own manifest, and exists from the one rename that
    gives the folder its name; the newest is the one with the largest step in its manifest.

    Args:
        keep: number of complete checkpoints to keep.
        log: receives a line for the user: a damaged checkpoint, a disk that is nearly full.
    """

    def __init__(self, folder: Path, keep: int = 2, log: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.keep, self.log = Path(folder), keep, log
        self._damaged: set[str] = set()
        self._warned = False

    def prepare(self) -> None:
        """Make the folder, and remove the leftovers of a killed save.

        Raises:
            ConfigError: it can't be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            leftovers = remove_leftovers(self.folder)
            write_atomic(self.folder / ".old-writable", "")
            remove(self.folder / ".old-writable")
        except OSError as cause:
            raise ConfigError(
                f"{self.folder}: checkpoints can't be saved there ({cause.strerror}): give the run a writable folder (hydra.run.dir)"
            ) from cause
        if leftovers:
            self.log(f"{self.folder}: removed leftovers of an interrupted save ({', '.join(leftovers)})")

    def save(self, step: int, write: Callable[[Path], None], metadata: Mapping[str, Any] | None = None) -> Path:
        """Let `write` fill a folder and make it the checkpoint of a step; returns the folder.

        Raises:
            UserError: the disk is full or can't be written. The earlier checkpoints remain, and nothing of the new one.
        """
        staging = self.begin(step)
        try:
            write(staging)
        except OSError as cause:
            raise self.save_error(step, cause) from cause
        except BaseException:
            remove(staging)
            raise
        return self.commit(step, metadata or {})

    def staging_folder(self, step: int) -> Path:
        """The folder for the files of a step before they are its checkpoint."""
        return self.folder / f".new-step_{step}"

    def begin(self, step: int) -> Path:
        """Make the empty staging folder of a step. Raises UserError as `save` does."""
        staging = self.staging_folder(step)
        try:
            if staging.exists():
                remove(staging)
            staging.mkdir()
        except OSError as cause:
            raise self.save_error(step, cause) from cause
        return staging

    def commit(self, step: int, metadata: Mapping[str, Any]) -> Path:
        """Rename the staging folder to the checkpoint, verify it and remove older ones.

        Raises:
            UserError: as `save` does.
        """
        staging = self.staging_folder(step)
        checkpoints, unreadable = self._read()
        serial = 1 + max((checkpoint.serial for checkpoint in checkpoints), default=0)
        names = {path.name for path in (*(checkpoint.folder for checkpoint in checkpoints), *unreadable)}
        target = self.folder / (f"step_{step}" if f"step_{step}" not in names else f"step_{step}.{serial}")
        try:
            text = describe(staging, step, serial, metadata)
            sync_tree(staging)
            write_atomic(staging / NAME, text)
            os.rename(staging, target)
            sync(self.folder)
        except OSError as cause:
            raise self.save_error(step, cause) from cause
        except BaseException:
            remove(staging)
            raise
        self._prune(target, [checkpoint for checkpoint in checkpoints if checkpoint.folder.name not in self._damaged])
        return target

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint with the largest step, its hashes verified; None before the first save.

        Damaged and missing ones are logged and skipped.

        Raises:
            DataError: there are checkpoints and none is complete; a training never restarts silently.
        """
        if not self.folder.is_dir():
            return None
        checkpoints, unreadable = self._read()
        self._damaged = {path.name for path in unreadable}
        problems = [*self._index_problems(), *unreadable.values()]
        # The newest whose files have their recorded hashes.
        newest = None
        for checkpoint in sorted(checkpoints, key=lambda checkpoint: checkpoint.order, reverse=True):
            try:
                verify(checkpoint.folder)
            except DamagedCheckpoint as cause:
                self._damaged.add(checkpoint.folder.name)
                problems.append(str(cause))
                continue
            newest = checkpoint
            break
        # Report the damaged ones.
        for problem in problems:
            self.log(f"checkpoint damaged: {problem}" + (f"; {newest.folder.name} is complete and is used" if newest else ""))
        if problems and newest is None:
            raise DataError(
                f"{self.folder}: there are checkpoints and none is complete ({'; '.join(problems)}): restore one from a copy, or delete "
                "the folder to train from the start"
            )
        if newest is not None:
            self._warn_if_full(newest.size)
        return newest

    def save_error(self, step: int, cause: Exception) -> UserError:
        """The error of a failed save, after its staging folder is removed."""
        staging = self.staging_folder(step)
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.is_dir() else 0
        with contextlib.suppress(OSError):
            if staging.exists():
                remove(staging)
        earlier = ", ".join(checkpoint.folder.name for checkpoint in self._read()[0]) or "none"
        return UserError(
            f"{staging}: the checkpoint of step {step} couldn't be written ({cause}) after {written:,} bytes, {_free(self.folder):,} are "
            f"free; it was removed, and the earlier checkpoints remain ({earlier}): make room or lift the limit, then resume the run"
        )

    def _prune(self, target: Path, before: list[Checkpoint]) -> None:
        """Verify a new checkpoint, write the index of those to keep, and remove the others."""
        try:
            verify(target)
        except DamagedCheckpoint as cause:
            remove(target)
            raise UserError(f"the disk changed what was written to it: {cause}; the earlier checkpoints remain") from cause
        new = read(target)
        newest = sorted([*before, new], key=lambda checkpoint: checkpoint.order)[-self.keep :]
        names = {checkpoint.folder.name for checkpoint in newest} | {target.name}
        try:
            write_atomic(self.folder / INDEX, json.dumps({"checkpoints": sorted(names)}) + "\n")
            for path in self._folders():
                if path.name not in names:
                    remove(path)
        except OSError as cause:
            raise UserError(f"{self.folder}: {target.name} is saved, but older checkpoints couldn't be removed ({cause})") from cause
        self._warn_if_full(new.size)

    def _warn_if_full(self, size: int) -> None:
        free = _free(self.folder)
        if free < 2 * size and not self._warned:
            self._warned = True
            self.log(f"{self.folder}: {free:,} bytes are free and a checkpoint takes {size:,}: less than two more fit")

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and _is_checkpoint(path))

    def _read(self) -> tuple[list[Checkpoint], dict[Path, str]]:
        """The checkpoints whose manifests can be read, and the problem of each of the others."""
        checkpoints, unreadable = [], {}
        for path in self._folders():
            try:
                checkpoints.append(read(path))
            except DamagedCheckpoint as cause:
                unreadable[path] = str(cause)
        return checkpoints, unreadable

    def _index_problems(self) -> list[str]:
        """Names in the index without a folder, or why the index can't be read."""
        path = self.folder / INDEX
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["checkpoints"]
            return [f"{self.folder / name} is missing" for name in names if not (self.folder / name).exists()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as cause:
            return [f"{path} can't be read ({type(cause).__name__}: {cause})"]


def remove_checkpoints(folder: Path) -> None:
    """Delete a finished run's stores, one for each training; other files remain, and their folders."""
    for training in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            remove_leftovers(training)
            for path in training.iterdir():
                if path.name in (INDEX, LOCK) or _is_checkpoint(path):
                    remove(path)
            training.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_checkpoint(path: Path) -> bool:
    """Recognise a store's folder by its name, or by its manifest after a rename."""
    return not path.name.startswith(".") and bool(_STEP.fullmatch(path.name) or (path / NAME).is_file())


def _free(folder: Path) -> int:
    """Bytes that a user may still write there."""
    return shutil.disk_usage(folder).free
