"""Lightning's loggers with the metric names of a framework, tables of samples, and the report."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from rlhf_lightning.config.display import markdown
from rlhf_lightning.config.redaction import without_any_secret, without_secrets
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.tracking.csv_logger import AtomicCSVWriter, write_rows
from rlhf_lightning.tracking.logger_settings import WandbSettings, logger_settings
from rlhf_lightning.tracking.metric_names import rename_metrics

if TYPE_CHECKING:
    from rlhf_lightning.report.report import Sample


class Logged(Protocol):
    """The run that is logged."""

    config: DictConfig
    folder: Path

    @property
    def is_rank_zero(self) -> bool: ...

    def log(self, text: str) -> None: ...


class Tracker(Protocol):
    """A Lightning logger that also takes what a run ends with."""

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        """Log the samples as a table, the report, and the run's metrics."""


class FaultTolerantLogger:
    """Mixed into a logger of Lightning's: metrics get the names of a framework, and an error of the logger is said once and costs its
    curves at most, never the run. The module's history and the report have all metrics anyway."""

    naming = "trl"
    log: Callable[[str], None] = staticmethod(lambda text: None)
    failed = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._trying("log_metrics", rename_metrics(metrics, self.naming), step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._trying("log_hyperparams", *args, **kwargs)

    def save(self) -> None:
        self._trying("save")

    def finalize(self, status: str) -> None:
        self._trying("finalize", status)

    def _trying(self, name: str, *args: Any, **kwargs: Any) -> None:
        try:
            getattr(super(), name)(*args, **kwargs)
        except Exception as cause:
            if not self.failed:
                self.failed = True
                self.log(f"the logger fails, and the training goes on ({_said(cause)}): curves may have a gap, the report has none")


class CSVTracker(FaultTolerantLogger, CSVLogger):
    """metrics.csv of each stage; samples.csv, and what a resumed run had logged before, beside the stages' folders."""

    def __init__(self, folder: Path, stage: str, naming: str) -> None:
        super().__init__(folder, name=stage, version="", flush_logs_every_n_steps=10)
        self.folder, self.naming = folder, naming

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = AtomicCSVWriter(self.log_dir)
        return self._experiment

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        rows = table_of(samples)
        if rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self.folder / "samples.csv", list(rows[0]), rows)


class TensorBoardTracker(FaultTolerantLogger, TensorBoardLogger):
    """Curves of each stage; samples as a table of text, the run's metrics as scalars."""

    def __init__(self, folder: Path, stage: str, naming: str) -> None:
        super().__init__(folder, name=stage, version="")
        self.naming = naming

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        rows = table_of(samples)
        if rows:
            lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
            self.experiment.add_text("samples", "\n".join(f"| {' | '.join(line)} |" for line in lines))
        self.experiment.add_text("report", markdown(str(page)))
        self.log_metrics({f"results/{name}": value for name, value in results.items()}, 0)
        self.save()


class WandbTracker(FaultTolerantLogger, WandbLogger):
    """One W&B run; samples as a table, the report as an artifact, the run's metrics as its summary.

    `given_up`: the server was not reached, or there is no account: the runs after that don't wait for it again.
    """

    given_up: ClassVar[bool] = False

    def __init__(self, naming: str, **about: Any) -> None:
        super().__init__(**about)
        self.naming = naming

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        import wandb

        run: Any = self.experiment
        rows = table_of(samples)
        if rows:
            run.log({"samples": wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])})
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"report-{page.parent.name}"), type="report")
        for file in (page, page.with_suffix(".json")):
            if file.is_file():
                artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.summary.update(dict(results))


def table_of(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """A row for each sample, with the columns that any of them has."""
    rows = [asdict(sample) for sample in samples]
    kept = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in kept} for row in rows]


def _cell(value: Any) -> str:
    """A value inside a Markdown table."""
    if isinstance(value, str):
        return "<br>".join(map(markdown, value.splitlines()))
    return "" if value is None else str(value)


def tracker(run: Logged, stage: str) -> Tracker | None:
    """A new logger of the chosen kind for one stage, writing below the run's folder; None for logger=none, and where it can't begin, which
    is said.

    Raises:
        ConfigError: a kind whose package isn't installed.
    """
    settings, kind = logger_settings(run.config.logger), run.config.logger.kind
    try:
        made = None if kind == "none" else _made(run, stage, kind, settings)
        if made is not None:
            made.log = run.log
            _ = made.experiment  # begun here, where an error costs the logger alone
        return made
    except ModuleNotFoundError as cause:
        raise ConfigError(f"logger={kind} needs more packages: pip install 'rlhf-lightning[{kind}]' ({cause})") from cause
    except UserError:
        raise
    except Exception as cause:
        run.log(f"logger={kind} can't begin, and {stage} is not logged ({_said(cause)})")
        return None


def _made(run: Logged, stage: str, kind: str, settings: Any) -> Any:
    if kind == "wandb":
        return wandb_tracker(run, stage, settings)
    if kind == "tensorboard":
        if run.is_rank_zero:
            remove_events(run.folder / "logs" / stage)
        return TensorBoardTracker(run.folder / "logs", stage, settings.naming)
    if run.is_rank_zero:
        set_aside(run.folder / "logs", stage)
    return CSVTracker(run.folder / "logs", stage, settings.naming)


def _said(cause: Exception) -> str:
    """An error in one line."""
    return without_any_secret(f"{type(cause).__name__}: {cause}").strip().split("\n")[0]


def remove_events(folder: Path) -> None:
    """Delete the TensorBoard files of a training that was stopped: a resumed one writes all of its curves again."""
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()


def set_aside(folder: Path, stage: str) -> None:
    """Move what a run had logged before it was stopped and resumed to STAGE_before_1.csv: Lightning would delete it."""
    earlier = folder / stage / "metrics.csv"
    if earlier.is_file():
        earlier.rename(folder / f"{stage}_before_{len(list(folder.glob(f'{stage}_before_*.csv'))) + 1}.csv")


def wandb_tracker(run: Logged, stage: str, settings: WandbSettings) -> WandbTracker:
    """A W&B run of its own for one stage, in the group of its run, or of its sweep. Whatever W&B can't do, the run goes on."""
    import wandb

    finish_wandb()  # else the second stage would write into the first one's run
    group, name = _place(run.folder)
    opened = None
    if run.is_rank_zero:
        about: dict[str, Any] = {
            "project": settings.project, "group": settings.group or group, "name": f"{name}/{stage}", "job_type": stage,
            "dir": str(run.folder), "config": without_secrets(run.config),
            "settings": wandb.Settings(silent=True, init_timeout=settings.init_timeout, finish_timeout=settings.finish_timeout),
        }  # fmt: skip
        opened = _opened(run, settings.mode, about)
        opened.define_metric("trainer/global_step")
        opened.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbTracker(settings.naming, experiment=opened, save_dir=str(run.folder))


def _opened(run: Logged, mode: str, about: Mapping[str, Any]) -> Any:
    """The run in its mode; offline where the server can't be had."""
    import wandb

    if mode == "online" and not WandbTracker.given_up:
        try:
            with nobody_types(), masked_command():
                opened = wandb.init(mode="online", **about)
            run.log(f"W&B: {opened.url}")
            return opened
        except Exception as cause:
            WandbTracker.given_up = True
            said = str(cause).strip().split("\n")[0] or type(cause).__name__
            run.log(f"W&B is not reached, and this run is logged offline (`wandb sync` uploads it later): {said}")
    with masked_command():
        return wandb.init(mode="disabled" if mode == "disabled" else "offline", **about)


@contextmanager
def masked_command() -> Iterator[None]:
    """Let W&B, which records the words of the command, see them without secrets."""
    words = sys.argv
    sys.argv = [words[0], *without_secrets(words[1:])]
    try:
        yield
    finally:
        sys.argv = words


@contextmanager
def nobody_types() -> Iterator[None]:
    """No terminal to read from: where no account is known, wandb.init would ask for one there and wait for the answer."""
    terminal = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


def _place(folder: Path) -> tuple[str, str]:
    """The group and the name of a run: a job of a sweep stands in its sweep's group under its number."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return folder.parent.name, folder.name
    return folder.name, folder.name


def finish_wandb() -> None:
    """End the open W&B run, if there is one. Where its service has died, it is forgotten, and the next run begins another."""
    if "wandb" not in sys.modules:
        return
    wandb: Any = sys.modules["wandb"]
    try:
        wandb.finish()
    except Exception:
        with suppress(Exception):
            wandb.teardown()
