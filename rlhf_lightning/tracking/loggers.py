"""Lightning's loggers with the metric names of a framework, tables of samples, and the report."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from rlhf_lightning.config.display import markdown, without_any_secret, without_secrets
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.tracking.csv_logger import AtomicCSVWriter, append_samples, write_rows
from rlhf_lightning.tracking.logger_settings import WandbSettings, logger_settings, rename_metrics
from rlhf_lightning.tracking.samples import Rows, markdown_table, table_of

if TYPE_CHECKING:
    from rlhf_lightning.report.report import Sample


class LoggedRun(Protocol):
    """The run whose training is logged."""

    config: DictConfig
    folder: Path

    @property
    def is_rank_zero(self) -> bool: ...

    def log(self, text: str) -> None: ...


class Tracker(Protocol):
    """A Lightning logger that also takes samples, report and results at the end of a run."""

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        """Log the samples as a table, the report, and the run's metrics."""

    def log_samples(self, rows: Rows) -> None:
        """Log a table of responses during a training (tracking/samples.py)."""


class FaultTolerantLogger:
    """Mixin for Lightning's loggers: rename the metrics, log a failure once and keep training.

    The module's history and the report have all metrics anyway.
    """

    naming = "trl"
    log: Callable[[str], None] = staticmethod(lambda text: None)
    failed = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._try("log_metrics", rename_metrics(metrics, self.naming), step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        self._try("log_hyperparams", *args, **kwargs)

    def save(self) -> None:
        self._try("save")

    def finalize(self, status: str) -> None:
        self._try("finalize", status)

    def log_samples(self, rows: Rows) -> None:
        self._call(self.write_samples, rows)

    def write_samples(self, rows: Rows) -> None:
        """Write a table of responses."""
        raise NotImplementedError

    def _try(self, name: str, *args: Any, **kwargs: Any) -> None:
        self._call(getattr(super(), name), *args, **kwargs)

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception as cause:
            if not self.failed:
                self.failed = True
                self.log(f"the logger fails, and the training continues ({_one_line(cause)}): curves may have a gap, the report has none")


class CSVTracker(FaultTolerantLogger, CSVLogger):
    """Writes metrics.csv of each training; samples.csv and earlier logs are next to it."""

    def __init__(self, folder: Path, stage: str, naming: str) -> None:
        super().__init__(folder, name=stage, version="", flush_logs_every_n_steps=10)
        self.folder, self.naming = folder, naming

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = AtomicCSVWriter(self.log_dir)
        return self._experiment

    def write_samples(self, rows: Rows) -> None:
        append_samples(Path(self.log_dir) / "samples.csv", rows)

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        rows = table_of(samples)
        if rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_rows(self.folder / "samples.csv", list(rows[0]), rows)


class TensorBoardTracker(FaultTolerantLogger, TensorBoardLogger):
    """Writes curves of each training; samples as a table of text, the run's metrics as scalars."""

    def __init__(self, folder: Path, stage: str, naming: str) -> None:
        super().__init__(folder, name=stage, version="")
        self.naming = naming

    def write_samples(self, rows: Rows) -> None:
        self.experiment.add_text(f"samples/{rows[0]['prompts']}", markdown_table(rows), rows[0]["step"])

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        rows = table_of(samples)
        if rows:
            self.experiment.add_text("samples", markdown_table(rows))
        self.experiment.add_text("report", markdown(str(page)))
        self.log_metrics({f"results/{name}": value for name, value in results.items()}, 0)
        self.save()


class WandbTracker(FaultTolerantLogger, WandbLogger):
    """Writes one W&B run: samples as a table, the report as an artifact, metrics as the summary.

    Attributes:
        is_unreachable: an earlier run found no server or no account; later runs don't wait for it again.
    """

    is_unreachable: ClassVar[bool] = False

    def __init__(self, naming: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.naming = naming

    def write_samples(self, rows: Rows) -> None:
        import wandb

        table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        self.experiment.log({f"samples/{rows[0]['prompts']}": table, "trainer/global_step": rows[0]["step"]})

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


def tracker(run: LoggedRun, stage: str) -> Tracker | None:
    """Make the chosen logger for one training; None for logger=none or one that fails to start.

    Raises:
        ConfigError: the package of the logger isn't installed.
    """
    settings, kind = logger_settings(run.config.logger), run.config.logger.kind
    try:
        logger = None if kind == "none" else _make(run, stage, kind, settings)
        if logger is not None:
            logger.log = run.log
            _ = logger.experiment  # opened here, where an error leaves the training untouched
        return logger
    except ModuleNotFoundError as cause:
        raise ConfigError(f"logger={kind} needs another package: pip install {kind} ({cause})") from cause
    except UserError:
        raise
    except Exception as cause:
        run.log(f"logger={kind} fails to start, and {stage} is not logged ({_one_line(cause)})")
        return None


def _make(run: LoggedRun, stage: str, kind: str, settings: Any) -> Any:
    if kind == "wandb":
        return wandb_tracker(run, stage, settings)
    if kind == "tensorboard":
        if run.is_rank_zero:
            # Of a stopped training: a resumed one writes all curves again.
            for file in (run.folder / "logs" / stage).glob("events.out.tfevents.*"):
                file.unlink()
        return TensorBoardTracker(run.folder / "logs", stage, settings.naming)
    if run.is_rank_zero:
        keep_earlier_log(run.folder / "logs", stage)
    return CSVTracker(run.folder / "logs", stage, settings.naming)


def _one_line(cause: Exception) -> str:
    """The type and the first line of an error, without secrets."""
    return without_any_secret(f"{type(cause).__name__}: {cause}").strip().split("\n")[0]


def keep_earlier_log(folder: Path, stage: str) -> None:
    """Move the log of a stopped run to STAGE_before_1.csv, since Lightning would delete it on resume."""
    earlier = folder / stage / "metrics.csv"
    if earlier.is_file():
        earlier.rename(folder / f"{stage}_before_{len(list(folder.glob(f'{stage}_before_*.csv'))) + 1}.csv")


def wandb_tracker(run: LoggedRun, stage: str, settings: WandbSettings) -> WandbTracker:
    """Make a W&B run for one training; a failure of W&B doesn't stop the run."""
    import wandb

    finish_wandb()  # or the second training would write into the first one's run
    group, name = _group_and_name(run.folder)
    experiment = None
    if run.is_rank_zero:
        arguments: dict[str, Any] = {
            "project": settings.project, "group": settings.group or group, "name": f"{settings.name or name}/{stage}",
            "job_type": settings.job_type or stage, "tags": list(settings.tags), "notes": settings.notes,
            "dir": str(run.folder), "config": without_secrets(run.config),
            "settings": wandb.Settings(silent=True, init_timeout=settings.init_timeout, finish_timeout=settings.finish_timeout),
        }  # fmt: skip
        experiment = _open_run(run, settings.mode, arguments)
        experiment.define_metric("trainer/global_step")
        experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbTracker(settings.naming, experiment=experiment, save_dir=str(run.folder))


def _open_run(run: LoggedRun, mode: str, arguments: Mapping[str, Any]) -> Any:
    """Open the W&B run in its mode; offline if the server can't be reached."""
    import wandb

    if mode == "online" and not WandbTracker.is_unreachable:
        try:
            with no_stdin(), masked_command():
                experiment = wandb.init(mode="online", **arguments)
            run.log(f"W&B: {experiment.url}")
            return experiment
        except Exception as cause:
            WandbTracker.is_unreachable = True
            reason = str(cause).strip().split("\n")[0] or type(cause).__name__
            run.log(f"W&B is not reached, and this run is logged offline (`wandb sync` uploads it later): {reason}")
    with masked_command():
        return wandb.init(mode="disabled" if mode == "disabled" else "offline", **arguments)


@contextmanager
def masked_command() -> Iterator[None]:
    """Remove secrets from sys.argv within the block: W&B records it."""
    argv = sys.argv
    sys.argv = [argv[0], *without_secrets(argv[1:])]
    try:
        yield
    finally:
        sys.argv = argv


@contextmanager
def no_stdin() -> Iterator[None]:
    """Close stdin within the block: without an account wandb.init would ask for one and wait."""
    terminal = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


def _group_and_name(folder: Path) -> tuple[str, str]:
    """The W&B group and name of a run: for a job of a sweep the sweep's folder and the job's number."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return folder.parent.name, folder.name
    return folder.name, folder.name


def finish_wandb() -> None:
    """Finish the open W&B run, if there is one. If its service has died, tear it down for the next run."""
    if "wandb" not in sys.modules:
        return
    wandb: Any = sys.modules["wandb"]
    try:
        wandb.finish()
    except Exception:
        with suppress(Exception):
            wandb.teardown()
