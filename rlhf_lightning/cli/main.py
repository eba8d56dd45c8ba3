"""The command line: load components -> compose -> check -> run the stage -> return one number."""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint.durable import disk_error
from rlhf_lightning.checkpoint.signals import handle_signals
from rlhf_lightning.checkpoint.torchrun_restart import rejoin_after_restart
from rlhf_lightning.cli import error_messages, help
from rlhf_lightning.cli.folder_lock import FolderLock
from rlhf_lightning.cli.sweep.jobs import ERROR_FILE
from rlhf_lightning.cli.sweep.resume import refuse_space_without_sweep, saved_objective
from rlhf_lightning.cli.sweep.table import SweepTable
from rlhf_lightning.config import plugins, yaml_check
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.command_paths import expand_home
from rlhf_lightning.config.overrides import check_words
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.config.redaction import mask_logs, safe_message
from rlhf_lightning.errors import UserError, file_error
from rlhf_lightning.plan.process_memory import peak_bytes
from rlhf_lightning.registry import build, load_components
from rlhf_lightning.runtime import resume, saved_config, stopwatch
from rlhf_lightning.runtime.composition import check, expand_paths
from rlhf_lightning.runtime.output_folder import check_working_folder, output_folder
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.training import launch
from rlhf_lightning.training.distributed import barrier, world_size
from rlhf_lightning.training.trainer import devices_on_a_node

CLOSED = 128 + signal.SIGPIPE
"""The exit code where nobody reads the output any more, as of other programs."""

yaml_check.register()
launch.register()  # here, so that the workers of a sweep have it too


def program() -> None:
    """`main` as a process of its own.

    Where processes trained together it ends without taking torch's threads apart: under torch 2.13 with gloo that aborts now and then
    (SIGABRT, one in four on a loaded machine), when all is done and written.
    """
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except Exception as error:
        code = 1
        if _is_unread() and isinstance(error, BrokenPipeError):
            code = CLOSED
        else:
            print_traceback(error)
    if _is_unread():
        code = code or CLOSED
    if world_size() > 1:
        os._exit(code)
    sys.exit(code)


def _is_unread() -> bool:
    """Write out stdout and stderr. Returns whether nobody reads one of them any more (`| head`): what is left of it is dropped."""
    unread = []
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            poll = select.poll()
            poll.register(stream, 0)
            unread += [stream for _, event in poll.poll(0) if event & select.POLLERR]
        except BrokenPipeError:
            unread.append(stream)
    for stream in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)


def main() -> None:
    """`python train.py` and `rlhf-lightning`. Exits with 0, with 1 after an error of the run, with 2 after a wrong command, with 143 or 130
    after SIGTERM or SIGINT."""
    mask_logs()
    with handle_signals():
        try:
            _command()
        except OSError as cause:
            if (error := file_error(cause)) is None:
                raise
            sys.exit(error_messages.tell(error))


def _command() -> None:
    try:
        sys.argv[1:] = words = launch.inherited_words(expand_home(plugins.take_flag(sys.argv[1:])))
    except UserError as error:
        sys.exit(error_messages.tell(error))
    broken = load_components_frozen()
    typed = {"-sc", "--shell-completion", "--shell_completion"} & set(words)
    if not typed and launch.this_launch().rank() == 0:  # nobody reads under a line that is being typed; one process speaks
        print("".join(f"{safe_message(line)}\n" for line in broken), end="", file=sys.stderr)
    if run_subcommand(words):
        return
    if (complete := resume.finished(words)) is not None:
        resume.tidy(complete)
        print(safe_message(f"{complete} is already complete: {complete / resume.RESULT}"))
        return
    try:
        sys.argv[1:] = hydra_words(words)
    except UserError as error:
        sys.exit(error_messages.tell(error))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar per saved shard would bury the run's own
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are told below in one way
    SweepTable.failed = 0
    try:
        with FolderLock.released(), SweepTable.told_if_interrupted(), yaml_check.checked_composition():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_job)()
    except Exception as cause:
        told = disk_error(cause) or file_error(cause) or cause
        if not error_messages.is_user_error(told):
            raise
        sys.exit(error_messages.tell(told))
    if SweepTable.failed:
        sys.exit(1)


def print_traceback(error: BaseException) -> None:
    """Print an error with its traceback on stderr, without secrets and control characters."""
    print(safe_message("".join(traceback.format_exception(error))), file=sys.stderr)


def hydra_words(words: Sequence[str]) -> list[str]:
    """The command as Hydra takes it. Raises UserError for one that it couldn't read."""
    check_words(words)
    check_working_folder()
    launch.hand_on(words=list(words))
    composed = saved_config.from_store(saved_config.absolute_config_path(resume.expand_resume(words)))
    return saved_config.move_flags_last([*launch.no_files(), *composed])


def load_components_frozen() -> list[str]:
    """`load_components` without the garbage collector, which would walk every object of torch again and again, and once more at the end:
    what is loaded stays for as long as the process. A third of the time of `--help`."""
    gc.disable()
    try:
        return load_components()
    finally:
        gc.enable()
        if not gc.get_freeze_count():
            gc.freeze()


def run_job(config: DictConfig) -> float:
    """One job: the whole run of one composed configuration. Returns the number that a sweep optimises; NaN for a job of a sweep that
    failed, so that the others run and the table at the end names it.

    A module-level function, so that the workers of a sweep find it by import.
    """
    load_components()
    mask_logs()
    about = HydraConfig.get()
    saved_config.redact_hydra_files(config, about)
    in_sweep = about.mode == RunMode.MULTIRUN
    try:
        if in_sweep and (objective := saved_objective(config, output_folder(about))) is not None:
            return objective
        refuse_space_without_sweep(about, in_sweep)
        return run_stage(config)
    except Exception as cause:
        error = disk_error(cause, output_folder(about)) or file_error(cause) or cause
        mendable = error_messages.is_user_error(error)
        if not in_sweep:
            if mendable:
                sys.exit(error_messages.tell(error))  # SystemExit passes through Hydra, which would add a line of its own
            raise
        if mendable:
            error_messages.tell(error)
        else:
            print_traceback(error)
        said = error_messages.told(error) if mendable else f"{type(error).__name__}: {error}"
        write_atomic(output_folder(about) / ERROR_FILE, safe_message(said))
        return math.nan


def run_stage(config: DictConfig) -> float:
    """Check, run the stage, write its result."""
    check(config)
    expand_paths(config)
    written: Any = OmegaConf.to_container(HydraConfig.get().run, resolve=False)
    launch.check_folder(written["dir"], devices_on_a_node(config.trainer), config.trainer.num_nodes)
    run = Run(config, output_folder(HydraConfig.get()))
    if run.is_rank_zero:
        resume.prepare(config, run.folder, run.log)
    if (objective := resume.complete(run.folder)) is not None:
        if run.is_rank_zero:
            resume.clean_finished(run.folder)
        run.log(f"{run.folder} is already complete: {run.folder / resume.RESULT}")
        return objective
    if run.is_rank_zero:
        saved_config.save(config, run.folder)
    rejoin_after_restart()
    with run.stopwatch.record(run.folder) if run.is_rank_zero else nullcontext():
        try:
            objective = float(build(config.stage)(run))
        finally:
            run.close()
    result = {"objective": objective, "metrics": run.results, "seconds": run.seconds, "peak_bytes": peak_bytes()}
    run.write_json(resume.RESULT, result)
    run.drop_checkpoints()
    if run.is_rank_zero:
        (run.folder / stopwatch.FILE).unlink(missing_ok=True)
    barrier()  # a process whose starter has ended ends at once
    return objective


def run_subcommand(words: Sequence[str]) -> bool:
    """Whether the command asked for something that is no run, which is done: `components [group]`, `new group name`, `--help`."""
    try:
        if words[:1] == ["components"]:
            help.print_components(words[1] if len(words) > 1 else None)
        elif words[:1] == ["new"]:
            from rlhf_lightning.cli.scaffold.write import write_new

            print("".join(f"{safe_message(str(file))}\n" for file in write_new(words[1:], Path("plugins"))), end="")
        elif {"--help", "-h"} & set(words):
            help.print_help()
        else:
            return False
    except UserError as error:
        sys.exit(error_messages.tell(error))
    return True


if __name__ == "__main__":
    program()
