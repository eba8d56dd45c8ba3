"""A folder of checkpoints of which a whole one stands at any time, whatever stops the process or the machine."""

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
from rlhf_lightning.checkpoint.manifest import NAME, Checkpoint, Damaged, describe, read, verify
from rlhf_lightning.config.atomic_write import sync, sync_tree, write_atomic
from rlhf_lightning.errors import ConfigError, DataError, UserError

INDEX = "index.json"
"""Names the checkpoints that should be there, so that one that was taken away is missed."""
_STEP = re.compile(r"step_\d+(\.\d+)?")
"""The name of a checkpoint's folder."""


class CheckpointStore:
    """Saves a checkpoint beside the others, makes sure of it, and only then takes an older one away; finds the newest whole one.

    One process writes at a time (checkpoint.lock). Each checkpoint is a folder with its own manifest, and stands from the one rename that
    gives the folder its name; the newest is the one with the largest step in its manifest.

    Args:
        keep: whole checkpoints that stay.
        log: shows a line to the user: a damaged checkpoint, a disk that is nearly full.
    """

    def __init__(self, folder: Path, keep: int = 2, log: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.keep, self.log = Path(folder), keep, log
        self._damaged: set[str] = set()
        self._warned = False

    def prepare(self) -> None:
        """Make the folder, and take away what a killed save left.

        Raises:
            ConfigError: it can't be made or written in.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            left = remove_leftovers(self.folder)
            write_atomic(self.folder / ".old-writable", "")
            remove(self.folder / ".old-writable")
        except OSError as cause:
            raise ConfigError(
                f"{self.folder}: checkpoints can't be kept there ({cause.strerror}): give the run a folder that can be written "
                "(hydra.run.dir)"
            ) from cause
        if left:
            self.log(f"{self.folder}: removed what a save that was cut off had left ({', '.join(left)})")

    def save(self, step: int, write: Callable[[Path], None], about: Mapping[str, Any] | None = None) -> Path:
        """Let `write` fill a folder and make it the checkpoint of a step; returns the folder.

        Raises:
            UserError: the disk is full or can't be written. The checkpoints before it stand, and nothing of the new one is left.
        """
        beside = self.begin(step)
        try:
            write(beside)
        except OSError as cause:
            raise self.refused(step, cause) from cause
        except BaseException:
            remove(beside)
            raise
        return self.commit(step, about or {})

    def beside(self, step: int) -> Path:
        """Where the files of a step are written before they are its checkpoint."""
        return self.folder / f".new-step_{step}"

    def begin(self, step: int) -> Path:
        """Make the empty folder `beside`. Raises UserError where that can't be."""
        beside = self.beside(step)
        try:
            if beside.exists():
                remove(beside)
            beside.mkdir()
        except OSError as cause:
            raise self.refused(step, cause) from cause
        return beside

    def commit(self, step: int, about: Mapping[str, Any]) -> Path:
        """Make the checkpoint of what lies in `beside`; older ones go once it is read back whole. Raises UserError as `save` does."""
        beside = self.beside(step)
        standing, others = self._read()
        serial = 1 + max((checkpoint.serial for checkpoint in standing), default=0)
        taken = {path.name for path in (*(checkpoint.folder for checkpoint in standing), *others)}
        target = self.folder / (f"step_{step}" if f"step_{step}" not in taken else f"step_{step}.{serial}")
        try:
            text = describe(beside, step, serial, about)
            sync_tree(beside)
            write_atomic(beside / NAME, text)
            os.rename(beside, target)
            sync(self.folder)
        except OSError as cause:
            raise self.refused(step, cause) from cause
        except BaseException:
            remove(beside)
            raise
        self._settle(target, [checkpoint for checkpoint in standing if checkpoint.folder.name not in self._damaged])
        return target

    def newest(self) -> Checkpoint | None:
        """The whole checkpoint with the largest step, held to its hashes; None where there has never been one.

        Damaged and missing ones are said and passed over.

        Raises:
            DataError: there are checkpoints, and none is whole: nothing is begun anew in silence.
        """
        if not self.folder.is_dir():
            return None
        standing, others = self._read()
        self._damaged = {path.name for path in others}
        wrong = [*self._missed(), *others.values()]
        found = None
        for checkpoint in sorted(standing, key=lambda checkpoint: checkpoint.order, reverse=True):
            try:
                verify(checkpoint.folder)
            except Damaged as cause:
                self._damaged.add(checkpoint.folder.name)
                wrong.append(str(cause))
                continue
            found = checkpoint
            break
        for text in wrong:
            self.log(f"checkpoint damaged: {text}" + (f"; {found.folder.name} is whole and is used" if found else ""))
        if wrong and found is None:
            raise DataError(
                f"{self.folder}: there are checkpoints and none is whole ({'; '.join(wrong)}): bring one back from a copy, or delete the "
                "folder to train from the start"
            )
        if found is not None:
            self._warn(found.size)
        return found

    def refused(self, step: int, cause: Exception) -> UserError:
        """The error of a save that couldn't be done, once nothing is left of it."""
        beside = self.beside(step)
        written = sum(path.stat().st_size for path in beside.rglob("*") if path.is_file()) if beside.is_dir() else 0
        with contextlib.suppress(OSError):
            if beside.exists():
                remove(beside)
        standing = ", ".join(checkpoint.folder.name for checkpoint in self._read()[0]) or "none before it"
        return UserError(
            f"{beside}: the checkpoint of step {step} couldn't be written ({cause}) after {written:,} bytes, {_free(self.folder):,} are "
            f"free; nothing of it is left, and the earlier ones stand ({standing}): make room or lift the limit, then resume the run"
        )

    def _settle(self, target: Path, before: list[Checkpoint]) -> None:
        """Read a new checkpoint back, note which ones stay, and take the others away."""
        try:
            verify(target)
        except Damaged as cause:
            remove(target)
            raise UserError(f"the disk didn't keep what was written to it: {cause}; the earlier checkpoints stand") from cause
        new = read(target)
        kept = sorted([*before, new], key=lambda checkpoint: checkpoint.order)[-self.keep :]
        names = {checkpoint.folder.name for checkpoint in kept} | {target.name}
        try:
            write_atomic(self.folder / INDEX, json.dumps({"checkpoints": sorted(names)}) + "\n")
            for path in self._folders():
                if path.name not in names:
                    remove(path)
        except OSError as cause:
            raise UserError(f"{self.folder}: {target.name} stands, but older checkpoints couldn't be taken away ({cause})") from cause
        self._warn(new.size)

    def _warn(self, size: int) -> None:
        free = _free(self.folder)
        if free < 2 * size and not self._warned:
            self._warned = True
            self.log(f"{self.folder}: {free:,} bytes are free and a checkpoint takes {size:,}: less than two more fit")

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and _is_checkpoint(path))

    def _read(self) -> tuple[list[Checkpoint], dict[Path, str]]:
        """The checkpoints whose manifests can be read, and what is wrong with the others."""
        standing, others = [], {}
        for path in self._folders():
            try:
                standing.append(read(path))
            except Damaged as cause:
                others[path] = str(cause)
        return standing, others

    def _missed(self) -> list[str]:
        """What is wrong with the index: names of which there is no folder, or that it can't be read."""
        path = self.folder / INDEX
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["checkpoints"]
            return [f"{self.folder / name} is missing" for name in names if not (self.folder / name).exists()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as cause:
            return [f"{path} can't be read ({type(cause).__name__}: {cause})"]


def remove_checkpoints(folder: Path) -> None:
    """Delete a finished run's stores, one for each training; files that no store wrote stay, and the folders that hold them."""
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
    """Whether a store wrote it: by its name, or by its manifest where it was renamed."""
    return not path.name.startswith(".") and bool(_STEP.fullmatch(path.name) or (path / NAME).is_file())


def _free(folder: Path) -> int:
    """Bytes that a user may still write there."""
    return shutil.disk_usage(folder).free
