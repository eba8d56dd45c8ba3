"""The jobs of a sweep, read from its folder: settings, results and errors, grouped over seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint.store import remove_checkpoints
from rlhf_lightning.config.display import without_secrets
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.output_folder import is_complete, real_folder
from rlhf_lightning.runtime.resume import RESULT
from rlhf_lightning.statistics.intervals import Interval, mean_interval

ERROR_FILE = "error.txt"
"""The error of a job that failed, in its folder; one that finished has resume.RESULT instead."""
SEED = "seed"


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: of its folder, its number.
        settings: the overrides of its command, by key.
        objective: the number that its stage returned; None where it failed.
        metrics: what else it measured; seconds: of its stages together.
        error: why it failed.
    """

    name: str
    settings: Mapping[str, str]
    objective: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def overrides(self) -> str:
        """The settings as on the command line."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


@dataclass(frozen=True)
class SameSettings:
    """Jobs that differ by their seed alone: the seed is not among the settings."""

    settings: Mapping[str, str]
    jobs: Sequence[Job]

    @property
    def finished_jobs(self) -> list[Job]:
        """Those with a result."""
        return [job for job in self.jobs if job.objective is not None]

    @property
    def objective(self) -> Interval | None:
        """The mean over seeds with its 95 % interval; None where no job has a result."""
        return mean_interval([job.objective for job in self.finished_jobs if job.objective is not None]) if self.finished_jobs else None

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over seeds, `seconds` included."""
        names = dict.fromkeys(name for job in self.finished_jobs for name in job.metrics)
        means = {name: fmean(job.metrics[name] for job in self.finished_jobs if name in job.metrics) for name in names}
        return means | {"seconds": fmean(job.seconds for job in self.finished_jobs)} if self.finished_jobs else {}


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep's folder in the order of their numbers."""
    jobs = [read_job(job) for job in folder.iterdir() if (job / ".hydra" / "overrides.yaml").is_file()]
    return sorted(jobs, key=lambda job: (int(job.name), "") if job.name.isdigit() else (2**31, job.name))


def read_job(folder: Path) -> Job:
    """Read a job from its folder, with its error if there is no result."""
    overrides: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"), resolve=False)
    pairs = (str(override).lstrip("+").partition("=") for override in overrides)
    settings = {key: value for key, _, value in pairs}
    result = folder / RESULT
    if not result.is_file():
        error = folder / ERROR_FILE
        return Job(
            folder.name,
            settings,
            error=error.read_text(encoding="utf-8", errors="replace") if error.is_file() else "no result was written: the job was ended",
        )
    content: dict[str, Any] = json.loads(result.read_text())
    return Job(folder.name, settings, float(content["objective"]), content["metrics"], sum(content["seconds"].values()))


def varied_settings(jobs: Sequence[Job]) -> list[str]:
    """The settings that are not the same in all jobs."""
    names = dict.fromkeys(name for job in jobs for name in job.settings)
    return [name for name in names if len({job.settings.get(name) for job in jobs}) > 1]


def by_settings(jobs: Sequence[Job]) -> list[SameSettings]:
    """The jobs, those of different seeds together."""
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        settings = {name: value for name, value in job.settings.items() if name != SEED}
        groups.setdefault(tuple(settings.items()), []).append(job)
    return [SameSettings(dict(settings), same) for settings, same in groups.items()]


def refuse_another_sweep(config: DictConfig) -> None:
    """Reject a command that differs from that of the folder's sweep: one table would mix two sweeps.

    Raises:
        ConfigError: the folder's sweep was started with other overrides or another search space.
    """
    file = real_folder(config.hydra.sweep.dir) / resume.SWEEP
    if not is_complete(file):  # none, or cut off by a kill: no job has started
        return
    before, now = sweep_overrides(OmegaConf.load(file)), sweep_overrides(config)
    removed, added = [text for text in before if text not in now], [text for text in now if text not in before]
    if removed or added:
        changes = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in (("there", removed), ("here", added)) if texts)
        raise ConfigError(
            f"{file.parent} has the jobs of another sweep ({changes}): give the same overrides to resume it, or another hydra.sweep.dir"
        )


def sweep_overrides(config: Any) -> list[str]:
    """The overrides of a sweep's command and of its search space, without secrets."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    params = [f"{key}={value}" for key, value in (node["sweeper"].get("params") or {}).items()]
    overrides: list[str] = without_secrets([*map(str, node["overrides"]["task"]), *params])
    return overrides


def saved_objective(config: DictConfig, folder: Path) -> float | None:
    """The objective of a job that finished here with the same settings; None if it must run.

    A killed job resumes from its newest checkpoint. Checkpoints of other settings and the error of an earlier attempt are deleted.

    Raises:
        ConfigError: a job of other settings finished in this folder.
    """
    settings, result = folder / saved_config.FILE, folder / resume.RESULT
    if settings.is_file() and settings.read_text(encoding="utf-8") == saved_config.text(config):
        if result.is_file():
            resume.tidy(folder)
            return float(json.loads(result.read_text(encoding="utf-8"))["objective"])
        os.environ[resume.FLAG] = str(folder.resolve())
    else:
        resume.check_result(folder)
        remove_checkpoints(folder / resume.CHECKPOINTS)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    return None


def refuse_space_without_sweep(node: Any) -> None:
    """Reject a search space for a single run.

    Args:
        node: the run's `hydra` node.

    Raises:
        ConfigError: the command names a search space (hparams=...) and doesn't sweep.
    """
    space = node.sweeper.get("params")
    if space:
        raise ConfigError(f"hparams=... defines a sweep over {', '.join(map(str, space))}: add -m, or leave hparams=... out")
