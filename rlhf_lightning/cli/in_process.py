"""Run a command in this Python process: a script, a notebook, a test."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rlhf_lightning.cli.arguments import hydra_args, parse_args
from rlhf_lightning.cli.main import compose_and_run
from rlhf_lightning.cli.sweep.jobs import refuse_space_without_sweep
from rlhf_lightning.cli.user_errors import UserErrorExit, format_error, raise_as_exit
from rlhf_lightning.config.display import mask_logs
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.registry import load_components
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.runtime.stage import run_stage
from rlhf_lightning.training import launch

MODELS = ("policy", "reward_model", "sft")


@dataclass(frozen=True)
class RunResult:
    """The result of one run.

    Attributes:
        folder: of the run, with its report, configuration and models.
        folders: of the saved models, by path within the run's folder (`policy`, `reward_model`, `round_1/policy`).
        objective: the number that a sweep optimises.
        metrics: the stage's other results, as in result.json.
        ended: "finished", or why the run ended early ("max_time", "early_stopping", "alarm", "target" ...).
        history: metrics of each update by training; empty for a run that had finished before.
    """

    folder: Path
    folders: Mapping[str, Path]
    objective: float
    metrics: Mapping[str, float]
    ended: str
    history: Mapping[str, Sequence[Mapping[str, float]]]


def run(overrides: Sequence[str]) -> RunResult:
    """Run one command in this process: `run(["stage=reward", "feedback_source=jsonl", ...])`.

    The arguments are those of `python train.py`, including `resume=`, `--config-path` and `--plugins`. Working folder, sys.argv,
    environment, logging and Hydra's state are restored at the end; the random generators are seeded by the run.

    Args:
        overrides: of one run. For a sweep call `run` in a loop.

    Raises:
        UserError: a command that can't be run; it is printed by `python train.py` and exits with code 2.
    """
    if {"-m", "--multirun"} & set(overrides):
        raise ConfigError("run() carries out one run and -m is a sweep: call it in a loop, or use `python train.py -m ...`")
    runs: list[Run] = []

    def job(config: DictConfig) -> float:
        node = HydraConfig.get()
        saved_config.redact_hydra_files(config, node)
        with raise_as_exit(Path(node.runtime.output_dir)):
            refuse_space_without_sweep(node)
            runs.append(run_stage(config, node))
        return runs[-1].objective

    with restored_process(), _raise_user_errors():
        # The steps of cli.main.main, without its output.
        mask_logs()
        launch.run_name.cache_clear()  # a second run gets a folder by its own time
        args = parse_args(overrides)
        for complaint in load_components():
            warnings.warn(complaint, stacklevel=2)
        folder = resume.finished_run(args)
        if folder is None:
            sys.argv[1:] = hydra_args(args)
            compose_and_run(job)
    if folder is None and not runs:
        raise ConfigError(f"{' '.join(overrides)}: nothing was run; --help, --cfg and other flags that print are for `python train.py`")
    return _result(runs[0].folder, runs[0].history) if folder is None else _result(folder, {})


def _result(folder: Path, history: Mapping[str, Sequence[Mapping[str, float]]]) -> RunResult:
    content = json.loads((folder / resume.RESULT).read_text(encoding="utf-8"))
    models = sorted(path for pattern in ("", "round_*/") for name in MODELS for path in folder.glob(f"{pattern}{name}") if path.is_dir())
    folders = {path.relative_to(folder).as_posix(): path for path in models}
    return RunResult(folder, folders, float(content["objective"]), content["metrics"], content.get("ended", "finished"), history)


@contextmanager
def _raise_user_errors() -> Iterator[None]:
    """Raise a UserError instead of exiting, and KeyboardInterrupt for a training that Ctrl-C stopped."""
    try:
        with raise_as_exit():
            yield
    except UserErrorExit as stop:
        if isinstance(stop.error, UserError):
            raise stop.error from stop.__cause__
        raise ConfigError(format_error(stop.error)) from stop.error
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt from stop
        if stop.code:
            raise


@contextmanager
def restored_process() -> Iterator[None]:
    """Restore sys.argv, environment, working folder, warnings, logging and Hydra's state."""
    # Save.
    argv, environment, folder, factory = list(sys.argv), dict(os.environ), os.getcwd(), logging.getLogRecordFactory()
    loggers = [logging.getLogger(), *(item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger))]
    states = [(logger, logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers]
    hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        # Restore.
        GlobalHydra.instance().hydra = hydra
        HydraConfig.instance().cfg = config
        for logger, level, handlers, propagate, disabled in states:
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate, logger.disabled = propagate, disabled
        logging.setLogRecordFactory(factory)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv[:] = argv
