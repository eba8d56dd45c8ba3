"""Rewrite a command's arguments: plugin folders, `~`, resume=, --config-path, flags last."""

from __future__ import annotations

import importlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from rlhf_lightning.cli.feedback_files import expand_feedback_files
from rlhf_lightning.cli.foreign_terms import reject_foreign_flags
from rlhf_lightning.cli.named_options import expand_named_options
from rlhf_lightning.cli.sweep.check import refuse_processes, values_of
from rlhf_lightning.config.overrides import FLAGS_WITH_VALUE, check_arguments, expand_home, quote_comparisons
from rlhf_lightning.config.plugins import take_flag
from rlhf_lightning.config.presets import list_presets, preset_file, root
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.registry import option
from rlhf_lightning.runtime import saved_config
from rlhf_lightning.runtime.composition import check, expand_paths
from rlhf_lightning.runtime.output_folder import check_working_folder
from rlhf_lightning.runtime.resume import expand_resume
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.training import launch

PRESETS = ("trainer", "logger")
"""Groups whose options may replace those of a saved configuration: how the run is carried out."""
_PATH_FLAGS = ("--config-path", "-cp")
_FOLDER_FLAGS = (*_PATH_FLAGS, "--config-dir", "-cd")
_STORED = "saved_run"
"""The name of a saved configuration in Hydra's store: its folder may have a name that Hydra can't read."""


def parse_args(argv: Sequence[str]) -> list[str]:
    """Expand `~` and feedback_source=FILE, quote comparisons and take plugin folders out.

    A process that Lightning started gets the arguments of the process that started it.

    Raises:
        ConfigError: --plugins without a folder.
    """
    arguments = [quote_comparisons(argument) for argument in expand_home(take_flag(argv))]
    return expand_named_options(expand_feedback_files(launch.inherited_overrides(arguments)))


def hydra_args(args: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them, and those that this command's child processes inherit.

    Raises:
        UserError: an argument that Hydra couldn't read, or a run that can't be resumed.
    """
    reject_foreign_flags(args)
    check_arguments(args)
    check_working_folder()
    launch.export_command(words=list(args))
    args = absolute_config_path(expand_resume(args))
    return move_flags_last([*launch.rank_overrides(), *store_saved_config(args)])


def absolute_config_path(args: Sequence[str]) -> list[str]:
    """The arguments with the folder of --config-path or --config-dir as an absolute path.

    Hydra looks for the first beside the program, and takes a name that begins with a dash for a flag.
    """
    absolute = list(args)
    for i, argument in enumerate(absolute):
        flag, equals, path = argument.partition("=")
        if flag in _FOLDER_FLAGS and equals and Path(path).is_dir():
            absolute[i] = f"{flag}={Path(path).resolve()}"
        elif argument in _FOLDER_FLAGS and i + 1 < len(absolute) and Path(absolute[i + 1]).is_dir():
            absolute[i + 1] = str(Path(absolute[i + 1]).resolve())
    return absolute


def store_saved_config(args: Sequence[str]) -> list[str]:
    """Replace `--config-path RUN` by the name of that run's configuration in Hydra's store.

    Hydra writes the path of a configuration into the configuration itself, and not every name fits there. `trainer=...` and
    `logger=...` replace the saved presets; another path is left to Hydra.

    Raises:
        ConfigError: a folder that is no run's, with a name that Hydra can't read.
        DataError: the run's configuration can't be read.
    """
    rest, folder = _without_path(args)
    named = any(argument.partition("=")[0] in ("--config-name", "-cn") for argument in args)
    if named or folder is None or not saved_config.is_saved(folder):
        _check_folder_names(args)
        return list(args)
    content, presets = saved_config.load(folder), list_presets()
    others = []
    for argument in rest:
        group, _, option = argument.partition("=")
        if group in PRESETS and option in presets.get(group, {}):
            content[group] = OmegaConf.merge(root().get(group, {}), OmegaConf.load(preset_file(group, option)))
        else:
            others.append(argument)
    ConfigStore.instance().store(name=_STORED, node=content)
    return [*others, "--config-name", _STORED]


def move_flags_last(args: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags after the overrides: it takes no flag between two overrides.

    Lightning puts one there for the processes that it starts of a command with --config-path.
    """
    is_flag = [argument.startswith("-") or before in FLAGS_WITH_VALUE for before, argument in zip(["", *args], args, strict=False)]
    return [argument for argument, flag in sorted(zip(args, is_flag, strict=True), key=lambda pair: pair[1])]


def _without_path(args: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without --config-path, and its folder."""
    rest, folder, remaining = [], None, iter(args)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag in _PATH_FLAGS and (equals or flag == argument):
            folder = Path(value if equals else next(remaining, ""))
        else:
            rest.append(argument)
    return rest, folder


def _check_folder_names(args: Sequence[str]) -> None:
    for before, argument in zip(["", *args], args, strict=False):
        flag, _, value = argument.partition("=")
        path = value if flag in _FOLDER_FLAGS else argument if before in _FOLDER_FLAGS else ""
        if "${" in path or (path.endswith((".yaml", ".yml")) and Path(path).is_dir()):
            raise ConfigError(f"{path}: Hydra can't read configurations in a folder of this name (no ${{, no .yaml at its end): rename it")


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
