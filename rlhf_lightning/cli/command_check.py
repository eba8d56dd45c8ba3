"""`--check`: validate a command, or every job of a sweep, without running it."""

from __future__ import annotations

import importlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from rlhf_lightning.cli.sweep.check import refuse_processes, values_of
from rlhf_lightning.errors import UserError
from rlhf_lightning.registry import option
from rlhf_lightning.runtime.composition import check, expand_paths
from rlhf_lightning.runtime.run import Run

FLAG = "--check"
NOT_CHECKED = "# composed, not checked: ranges and combinations of settings, files and the output folder; --check does that"
"""Printed after `--cfg job`."""


def check_command(config: DictConfig, mode: str) -> None:
    """Check the job of a composed command, or all jobs of a sweep, and print the result.

    Files, columns, templates and lengths are read; no model is loaded and no folder is made.

    Args:
        config: with its `hydra` node.
        mode: "run" or "sweep".

    Raises:
        UserError: the first thing with which a job would stop, and the job's overrides.
    """
    composed = list(_sweep_jobs(config)) if mode == "sweep" else [("", config)]
    jobs = [(overrides, OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])) for overrides, job in composed]
    for check_part in (_check_settings, _check_inputs):  # the settings of all jobs take less time than the files of one
        for overrides, job in jobs:
            try:
                check_part(job, mode)
            except UserError as error:
                raise type(error)(f"{overrides}: {error}" if overrides else str(error)) from error
    print("the command is valid" if mode == "run" else f"the sweep is valid: {len(jobs)} jobs")


def _check_settings(config: DictConfig, mode: str) -> None:
    check(config)
    expand_paths(config)
    if mode == "sweep":
        refuse_processes(config)


def _check_inputs(config: DictConfig, mode: str) -> None:
    module: Any = importlib.import_module(option("stage", "plan").target.__module__)
    with tempfile.TemporaryDirectory() as folder:
        module.check_inputs(Run(config, Path(folder), Console(quiet=True)))


def _sweep_jobs(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """Every job of a sweep with its overrides; the ends of an interval or a range stand for it."""
    loader = GlobalHydra.instance().config_loader()
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides([*swept, *config.hydra.overrides.task])
    varied = [override.is_sweep_override() for override in overrides]
    for texts in itertools.product(*map(values_of, overrides)):
        job = " ".join(text for text, is_swept in zip(texts, varied, strict=True) if is_swept)
        yield job, loader.load_sweep_config(config, list(texts))
