"""The command line: load components, read arguments, compose with Hydra, run each job."""

from __future__ import annotations

import functools
import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlhf_lightning.checkpoint.signals import handle_signals
from rlhf_lightning.cli import arguments, help
from rlhf_lightning.cli.arguments import hydra_args, parse_args
from rlhf_lightning.cli.completion import add_descriptions
from rlhf_lightning.cli.demo import demo_args
from rlhf_lightning.cli.folder_lock import FolderLock
from rlhf_lightning.cli.sweep.jobs import refuse_space_without_sweep, saved_objective
from rlhf_lightning.cli.sweep.prefix import prefixed_output
from rlhf_lightning.cli.sweep.table import SweepTable
from rlhf_lightning.cli.user_errors import exit_with_message, raise_as_exit, record_failure
from rlhf_lightning.config import yaml_check
from rlhf_lightning.config.display import mask_logs, safe_message
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.registry import load_components
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.output_folder import output_folder
from rlhf_lightning.runtime.stage import run_stage
from rlhf_lightning.training import launch

COMPLETION_FLAGS = {"-sc", "--shell-completion", "--shell_completion"}

yaml_check.register()
add_descriptions()
launch.register()  # here, so that the workers of a sweep have it too


def main() -> None:
    """Run one command: `python train.py` and `rlhf-lightning`.

    Exits with 1 after an error of the run, 2 after a wrong command, 130 or 143 after SIGINT or SIGTERM.
    """
    mask_logs()
    with handle_signals(), exit_with_message():
        args = parse_args(sys.argv[1:])
        report_broken_plugins(load_components_frozen(), args)
        if run_subcommand(args) or report_if_complete(args):
            return
        if args[:1] == ["demo"]:
            args = demo_args(args[1:])
        FolderLock.only_check = arguments.FLAG in args
        sys.argv[1:] = hydra_args([argument for argument in args if argument != arguments.FLAG])
        with SweepTable.summary():
            compose_and_run(run_job)
        if {"--cfg", "-c"} & set(args) and {"job", "all"} & set(args):
            print(arguments.NOT_CHECKED, file=sys.stderr)


def compose_and_run(job: Callable[[DictConfig], float]) -> None:
    """Compose the configuration of sys.argv with Hydra and call the job, or each job of a sweep."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar per saved shard would bury the run's own
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    with FolderLock.release_at_exit(), yaml_check.checked_composition():
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def run_job(config: DictConfig) -> float:
    """Run one job. Returns the objective; NaN for a failed job of a sweep, so that the others run.

    A module-level function, so that the workers of a sweep find it by import.
    """
    load_components()
    mask_logs()
    node = HydraConfig.get()
    saved_config.redact_hydra_files(config, node)
    folder, in_sweep = output_folder(node), node.mode == RunMode.MULTIRUN
    if not in_sweep:
        with raise_as_exit(folder):
            refuse_space_without_sweep(node)
            return run_stage(config, node).objective
    with prefixed_output(node):
        try:
            objective = saved_objective(config, folder)
            return run_stage(config, node).objective if objective is None else objective
        except Exception as error:
            record_failure(error, folder)
            return math.nan


def load_components_frozen() -> list[str]:
    """Load all components without garbage collection and freeze them; a third of the time of `--help`.

    The collector would walk every object of torch again and again, and once more at the end.
    """
    gc.disable()
    try:
        return load_components()
    finally:
        gc.enable()
        _freeze()


@functools.cache
def _freeze() -> None:
    """Freeze all objects once: asking the collector whether it was done would walk them too."""
    gc.freeze()


def report_broken_plugins(complaints: Sequence[str], args: Sequence[str]) -> None:
    """Print why plugins are left out: on rank 0 only, and not during shell completion."""
    if not COMPLETION_FLAGS & set(args) and launch.detect_launch().rank() == 0:
        print("".join(f"{safe_message(line)}\n" for line in complaints), end="", file=sys.stderr)


def run_subcommand(args: Sequence[str]) -> bool:
    """Run a subcommand or `--help`. Returns whether the command is one of these."""
    if args[:1] == ["components"]:
        help.print_components(" ".join(args[1:]) or None)
    elif args[:1] == ["new"]:
        from rlhf_lightning.cli.scaffold.write import write_new

        print("".join(f"{safe_message(str(file))}\n" for file in write_new(args[1:], Path("plugins"))), end="")
    elif args[:1] == ["chat"]:
        from rlhf_lightning.cli.chat import chat

        chat(args[1:])
    elif args[:1] == ["judge"]:
        from rlhf_lightning.cli.judge import judge

        judge(args[1:])
    elif args[:1] == ["export"]:
        from rlhf_lightning.cli.export import export

        export(args[1:])
    elif args[:1] == ["look"]:
        from rlhf_lightning.cli.look import look

        look(args[1:])
    elif args[:1] == ["rounds"]:
        from rlhf_lightning.cli.rounds import rounds

        rounds(args[1:])
    elif {"--help", "-h"} & set(args):
        help.print_help()
    else:
        return False
    return True


def report_if_complete(args: Sequence[str]) -> bool:
    """Print the result file of a run that `resume=RUN` names. Returns whether that run is complete."""
    folder = resume.finished_run(args)
    if folder is None:
        return False
    resume.tidy(folder)
    print(safe_message(f"{folder} is already complete: {folder / resume.RESULT}"))
    return True
