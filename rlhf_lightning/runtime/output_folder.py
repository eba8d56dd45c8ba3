"""Check the folder that a command writes into before anything is written or loaded."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError

from rlhf_lightning.checkpoint import run_record
from rlhf_lightning.checkpoint.lock import NAME as LOCK
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config, stopwatch
from rlhf_lightning.runtime.composition import path_settings

OURS = "rlhf_lightning"
"""A text in every file that Hydra writes for this program."""
LOGS = ("*.log", "*.out", "*.err", "*.txt", "nohup.out")
"""Files that a shell or a scheduler opens for a command's output before it starts; no run writes such names, but for `stalled_*.txt`."""
UNFINISHED = (
    saved_config.FILE, run_record.FILE, stopwatch.FILE, "error.txt", "logs", "wandb", "stalled_*.txt", "feedback.jsonl", "quarantine.jsonl",
    "backbone", "bad_batches", ".new-*", ".old-*",
)  # fmt: skip
"""Files of a run that failed before its first checkpoint: it can start again in the same folder."""
WRITTEN = (resume.CHECKPOINTS, "policy", "reward_model", "sft", "backbone", "round_*", "logs", "wandb", "bad_batches", ".hydra")
"""Folders within a run's folder that a resumed run may replace."""
HYDRA_FILES = {"config.yaml", "hydra.yaml", "overrides.yaml"}
HYDRA_END = "\n  verbose:"
"""The last key of Hydra's settings in a complete file of it."""
_FD_PATH = re.compile(r"/proc/\d+/fd/\d+(/.*)?")


def check_run(config: DictConfig, folder: Path) -> None:
    """Reject a folder with files of another program, or with the inputs of this run.

    Raises:
        ConfigError: naming the files and the remedy.
    """
    resumes = resume.is_resumed(folder)
    _check_kind(folder, "hydra.run.dir")
    if not folder.is_dir():
        return
    is_run = (folder / run_record.FILE).is_file()
    if not resumes:
        _check_inputs(config, folder, "hydra.run.dir")
        resume.check_folder(folder)
    elif is_run or (folder / saved_config.FILE).is_file():
        return
    _check_foreign(folder, UNFINISHED if is_run else (), "hydra.run.dir")


def check_sweep(config: DictConfig, folder: Path) -> None:
    """Reject a sweep's folder as `check_run` does, except that of the same sweep.

    Raises:
        ConfigError: naming the files and the remedy.
    """
    _check_kind(folder, "hydra.sweep.dir")
    subdir: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if "${" not in str(subdir["subdir"]):
        raise ConfigError(
            f"hydra.sweep.subdir={subdir['subdir']} is the same folder for all jobs, which would write over each other: leave it out, or "
            "put ${hydra.job.num} into it"
        )
    if not folder.is_dir():
        return
    _check_inputs(config, folder, "hydra.sweep.dir")
    if (folder / run_record.FILE).is_file():
        raise ConfigError(f"{folder} is the folder of a run, whose files are not overwritten: give the sweep another hydra.sweep.dir")
    if not is_ours(folder / resume.SWEEP):
        _check_foreign(folder, (), "hydra.sweep.dir")


def is_ours(file: Path) -> bool:
    """Return whether Hydra wrote this file for this program."""
    try:
        return OURS in file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def is_complete(file: Path) -> bool:
    """Return whether a file of Hydra's settings exists and has its last key."""
    return file.is_file() and HYDRA_END in file.read_text(encoding="utf-8", errors="replace")


def _check_kind(folder: Path, key: str) -> None:
    """Reject a path that can't be a folder, or is within another run's output."""
    if os.path.lexists(folder) and not folder.is_dir():
        kind = "a broken link" if folder.is_symlink() and not folder.exists() else "a file"
        raise ConfigError(f"{folder} is {kind}, and is not overwritten: name a folder ({key})")
    for parent in folder.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise ConfigError(f"{folder}: {parent} is a file, and no folder can be made in it: name another one ({key})")
    resolved = folder.resolve()
    for parent in resolved.parents:
        part = resolved.relative_to(parent).parts[0]
        if _fits(part, WRITTEN) and (parent / run_record.FILE).is_file():
            raise ConfigError(f"{folder} is within {parent / part}, which the run of {parent} writes: choose another folder ({key})")


def _check_inputs(config: DictConfig, folder: Path, key: str) -> None:
    """Reject settings that name a file or folder within the output folder."""
    target = folder.resolve()
    for name, text in path_settings(config):
        try:
            literal = text if os.path.lexists(text) else re.split(r"[*?\[]", text)[0]
            path = Path(literal).expanduser()
            inside = bool(literal) and path.exists() and target in (path.resolve(), *path.resolve().parents)
        except (OSError, ValueError, RuntimeError):  # not a valid file name
            continue
        if inside:
            raise ConfigError(
                f"{name}={text} is within {folder}, the output folder of the command: move the input out of it, or choose another "
                f"folder ({key})"
            )


def _check_foreign(folder: Path, ours: Collection[str], key: str) -> None:
    """Reject a folder with files other than those of this program and logs that a shell opened."""
    foreign = []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        is_log = path.is_file() and not path.is_symlink() and _fits(name, LOGS)
        is_hydras = name == ".hydra" and is_ours(path / "hydra.yaml")
        is_hydras |= name in (".hydra", resume.SWEEP) and _is_unfinished(folder, name)
        if not (name == LOCK or is_hydras or is_log or _fits(name, ours)):
            foreign.append(name)
    if foreign:
        listed = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise ConfigError(
            f"{folder} has files of something else ({listed}), which are not overwritten: choose a new or an empty folder ({key})"
        )


def _is_unfinished(folder: Path, name: str) -> bool:
    """Return whether a killed command left Hydra's file incomplete: its lock is still there."""
    path = folder / name
    file = path / "hydra.yaml" if name == ".hydra" else path
    if path.is_symlink() or not (folder / LOCK).is_file():
        return False
    if path.is_dir() and not set(os.listdir(path)) <= HYDRA_FILES:
        return False
    return not is_complete(file)


def _fits(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_working_folder() -> None:
    """Reject a working folder that Hydra can't store in its configuration. Raises ConfigError."""
    try:
        OmegaConf.create({"cwd": os.getcwd()})
    except GrammarParseError:
        raise ConfigError(f"{os.getcwd()}: Hydra can't run in a folder with an open ${{ in its path: start the command elsewhere") from None


def make_unused(folder: Path) -> Path:
    """Make a folder under its name or the next free one (NAME_2, NAME_3 ...); unique among processes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    name, number = folder, 1
    while True:
        try:
            name.mkdir()
            return name
        except FileExistsError:
            number += 1
            name = folder.with_name(f"{folder.name}_{number}")


def fd_path(folder: Path) -> Path | None:
    """A path without `${` to a folder whose own path has one; None for other folders.

    Hydra stores the folder's path as a value in the configuration, and OmegaConf would take `${x}` there for an interpolation.

    Raises:
        ConfigError: this system has no /proc.
    """
    if "${" not in os.path.abspath(folder):
        return None
    if not Path("/proc/self/fd").is_dir():
        raise ConfigError(f"{folder}: Hydra can't write into a folder with ${{ in its path on this system: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(f"/proc/{os.getpid()}/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}")


def output_folder(hydra: Any) -> Path:
    """The folder of a job, from its `hydra` node."""
    return real_folder(hydra.runtime.output_dir)


def real_folder(path: str | Path) -> Path:
    """The folder of a path in the configuration, with `fd_path` undone."""
    return Path(path).resolve() if _FD_PATH.fullmatch(str(path)) else Path(path)
