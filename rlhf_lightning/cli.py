"""The command line: load components -> compose -> check -> run the stage -> return one number."""

from __future__ import annotations

import gc
import math
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlhf_lightning import menu, saved_config, wrong_command
from rlhf_lightning.choices import check
from rlhf_lightning.errors import UserError
from rlhf_lightning.presets import CONF
from rlhf_lightning.registry import build, load_components
from rlhf_lightning.run import Run
from rlhf_lightning.sweep import ERROR_FILE, SweepTable


def main() -> None:
    """`python train.py` and `rlhf-lightning`. Exits with 0, with 1 after an error of the run, with 2 after a wrong command."""
    words = sys.argv[1:]
    broken = load_for_good()
    if not {"-sc", "--shell-completion", "--shell_completion"} & set(words):  # nobody reads under a line that is being typed
        print("".join(f"{line}\n" for line in broken), end="", file=sys.stderr)
    if words[:1] == ["components"]:
        list_components(words[1:])
        return
    if {"--help", "-h"} & set(words):
        menu.print_help()
        return
    sys.argv[1:] = saved_config.from_here(words)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar per saved shard would bury the run's own
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are told below in one way
    SweepTable.failed = 0
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_job)()
    except Exception as error:
        if not wrong_command.is_wrong(error):
            raise
        sys.exit(wrong_command.tell(error))
    if SweepTable.failed:
        sys.exit(1)


def load_for_good() -> list[str]:
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
    saved_config.mask_hydra_s(config, HydraConfig.get())
    try:
        return whole_run(config)
    except Exception as error:
        mendable = wrong_command.is_wrong(error)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            if mendable:
                sys.exit(wrong_command.tell(error))  # SystemExit passes through Hydra, which would add a line of its own
            raise
        if mendable:
            wrong_command.tell(error)
        else:
            traceback.print_exception(error)
        cause = wrong_command.told(error) if mendable else f"{type(error).__name__}: {error}"
        (Path(HydraConfig.get().runtime.output_dir) / ERROR_FILE).write_text(cause)
        return math.nan


def whole_run(config: DictConfig) -> float:
    """Check, run the stage, write its result."""
    check(config)
    run = Run(config, Path(HydraConfig.get().runtime.output_dir))
    if run.is_main:
        saved_config.save(config, run.folder)
    try:
        objective = float(build(config.stage)(run))
    finally:
        run.close()
    run.write_json("result.json", {"objective": objective, "figures": run.results, "seconds": run.seconds})
    return objective


def list_components(arguments: Iterable[str]) -> None:
    """`rlhf-lightning components [group]`: every option with its summary, its settings and where it comes from."""
    try:
        menu.print_components(next(iter(arguments), None))
    except UserError as error:
        sys.exit(wrong_command.tell(error))


if __name__ == "__main__":
    main()
