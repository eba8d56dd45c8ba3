"""The folder that a command writes into: a new or empty one, or its own. Found out before anything is written or loaded."""

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
"""In every file that Hydra writes of a command of this program."""
LOGS = ("*.log", "*.out", "*.err", "*.txt", "nohup.out")
"""Files that a shell or a scheduler opens for a command's output before it starts; no run writes such names, but for `stalled_*.txt`."""
BEGUN = (
    saved_config.FILE, run_record.FILE, stopwatch.FILE, "error.txt", "logs", "wandb", "stalled_*.txt", "feedback.jsonl", "quarantine.jsonl",
    "backbone", "bad_batches", ".new-*", ".old-*",
)  # fmt: skip
"""What a run that failed before its first checkpoint may have left: it can be begun again in the same folder."""
KEPT = (resume.CHECKPOINTS, "policy", "reward_model", "sft", "backbone", "round_*", "logs", "wandb", "bad_batches", ".hydra")
"""Folders within a run's folder that a resumed run may replace."""
HYDRA_FILES = {"config.yaml", "hydra.yaml", "overrides.yaml"}
HYDRA_END = "\n  verbose:"
"""The last key of Hydra's settings in a complete file of it."""
_STAND_IN = re.compile(r"/proc/\d+/fd/\d+(/.*)?")


def check_run(config: DictConfig, folder: Path) -> None:
    """Refuse a folder in which this run would write over what it didn't make, or read its inputs where it writes.

    Raises:
        ConfigError: naming what is there, and what to do.
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
    _check_foreign(folder, BEGUN if is_run else (), "hydra.run.dir")


def check_sweep(config: DictConfig, folder: Path) -> None:
    """Refuse a sweep's folder as `check_run` does; one that holds this very sweep is gone on with (sweep.going_on).

    Raises:
        ConfigError: naming what is there, and what to do.
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
        raise ConfigError(f"{folder} is the folder of a run, and its files stay as they are: give the sweep another hydra.sweep.dir")
    if not is_ours(folder / resume.SWEEP):
        _check_foreign(folder, (), "hydra.sweep.dir")


def is_ours(file: Path) -> bool:
    """Whether Hydra wrote this file of a command of this program."""
    try:
        return OURS in file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def is_complete(file: Path) -> bool:
    """Whether a file of Hydra's settings is there from its first key to its last."""
    return file.is_file() and HYDRA_END in file.read_text(encoding="utf-8", errors="replace")


def _check_kind(folder: Path, key: str) -> None:
    """Refuse what can't be a folder, and a place within another run's output."""
    if os.path.lexists(folder) and not folder.is_dir():
        kind = "a link that leads nowhere" if folder.is_symlink() and not folder.exists() else "a file"
        raise ConfigError(f"{folder} is {kind}, and it stays as it is: name a folder ({key})")
    for parent in folder.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise ConfigError(f"{folder}: {parent} is a file, so that no folder can be made in it: name another one ({key})")
    resolved = folder.resolve()
    for parent in resolved.parents:
        part = resolved.relative_to(parent).parts[0]
        if _fits(part, KEPT) and (parent / run_record.FILE).is_file():
            raise ConfigError(f"{folder} is within {parent / part}, which the run of {parent} writes: choose another folder ({key})")


def _check_inputs(config: DictConfig, folder: Path, key: str) -> None:
    """Refuse settings that name a file or folder within the folder that is written."""
    target = folder.resolve()
    for name, text in path_settings(config):
        try:
            literal = text if os.path.lexists(text) else re.split(r"[*?\[]", text)[0]
            path = Path(literal).expanduser()
            inside = bool(literal) and path.exists() and target in (path.resolve(), *path.resolve().parents)
        except (OSError, ValueError, RuntimeError):  # no name that a file could have
            continue
        if inside:
            raise ConfigError(
                f"{name}={text} is within {folder}, the folder that the command writes into: read it from where nothing is written, or "
                f"choose another folder ({key})"
            )


def _check_foreign(folder: Path, ours: Collection[str], key: str) -> None:
    """Refuse a folder that holds anything but what a command of this program may have left, and logs that a shell opened."""
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
            f"{folder} holds what this command didn't make ({listed}), and it stays as it is: choose a new or an empty folder ({key})"
        )


def _is_unfinished(folder: Path, name: str) -> bool:
    """Whether a killed command of this program left what Hydra was writing: the lock is there, and Hydra's file is not complete."""
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
    """Refuse a working folder that Hydra can't store in its configuration. Raises ConfigError."""
    try:
        OmegaConf.create({"cwd": os.getcwd()})
    except GrammarParseError:
        raise ConfigError(f"{os.getcwd()}: Hydra can't run in a folder with an open ${{ in its path: start the command elsewhere") from None


def make_unused(folder: Path) -> Path:
    """Make a folder, under the next free name NAME_2, NAME_3 ... where there is one already; no two processes get the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    name, number = folder, 1
    while True:
        try:
            name.mkdir()
            return name
        except FileExistsError:
            number += 1
            name = folder.with_name(f"{folder.name}_{number}")


def stand_in(folder: Path) -> Path | None:
    """A path to a folder that OmegaConf can hold, where its own has `${` in it; None where it hasn't.

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
    """The folder of a job, from its `hydra` node, and not a stand-in's."""
    return real_folder(hydra.runtime.output_dir)


def real_folder(path: str | Path) -> Path:
    """The folder that a path of the configuration means, and not a stand-in's."""
    return Path(path).resolve() if _STAND_IN.fullmatch(str(path)) else Path(path)
