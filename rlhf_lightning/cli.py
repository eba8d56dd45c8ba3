"""The command line: load components -> compose -> check -> run the stage -> return one number."""

from __future__ import annotations

import math
import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning import menu, wrong_command
from rlhf_lightning.errors import UserError
from rlhf_lightning.registry import build, check, load_components
from rlhf_lightning.run import Run, check_logger, without_secrets
from rlhf_lightning.sweep import ERROR_FILE, SweepTable

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def main() -> None:
    """`python train.py` and `rlhf-lightning`. Exits with 0, with 1 after an error of the run, with 2 after a wrong command."""
    for line in load_components():
        print(line, file=sys.stderr)
    if sys.argv[1:2] == ["components"]:
        list_components(sys.argv[2:])
        return
    if {"--help", "-h"} & set(sys.argv[1:]):
        menu.print_help(list_presets(CONF))
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar per saved shard would bury the run's own
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are told below in one way
    SweepTable.failed = 0
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_job)()
    except wrong_command.HYDRA_ERRORS as error:
        sys.exit(tell(told(error)))
    except ValueError as error:
        if not str(error).startswith(wrong_command.GROUP_OVERRIDE):
            raise
        sys.exit(tell(told(error)))
    if SweepTable.failed:
        sys.exit(1)


def run_job(config: DictConfig) -> float:
    """One job: the whole run of one composed configuration. Returns the number that a sweep optimises; NaN for a job of a sweep that
    failed, so that the others run and the table at the end names it.

    A module-level function, so that the workers of a sweep find it by import.
    """
    load_components()
    refuse_sweep_of_processes(config)
    try:
        return whole_run(config)
    except Exception as error:
        mendable = isinstance(error, (UserError, *wrong_command.HYDRA_ERRORS))
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            if mendable:
                sys.exit(tell(told(error)))  # SystemExit passes through Hydra, which would add a line of its own
            raise
        if mendable:
            tell(told(error))
        else:
            traceback.print_exception(error)
        cause = told(error) if mendable else f"{type(error).__name__}: {error}"
        (Path(HydraConfig.get().runtime.output_dir) / ERROR_FILE).write_text(cause)
        return math.nan


def whole_run(config: DictConfig) -> float:
    check(config)
    check_logger(config.logger)
    run = Run(config, Path(HydraConfig.get().runtime.output_dir))
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(without_secrets(config))))
    try:
        run.chosen("stage")
        objective = float(build(config.stage)(run))
    finally:
        run.close()
    run.write_json("result.json", {"objective": objective, "figures": run.results, "seconds": run.seconds})
    return objective


def list_components(arguments: list[str]) -> None:
    """`rlhf-lightning components [group]`: every option with its summary, its settings and where it comes from."""
    try:
        menu.print_components(arguments[0] if arguments else None)
    except UserError as error:
        sys.exit(tell(str(error)))


def told(error: BaseException) -> str:
    """What an error that the user can mend says: its own words, or ours for Hydra's."""
    return str(error) if isinstance(error, UserError) else wrong_command.message(error, sys.argv[1:], list_presets(CONF))


def tell(message: str) -> int:
    """An error that the user can mend, without a traceback."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def list_presets(conf: Path) -> dict[str, dict[str, list[str]]]:
    """The YAML groups of conf/ with their options and each option's settings."""
    folders = sorted(folder for folder in conf.iterdir() if folder.is_dir())
    return {folder.name: {f.stem: [str(key) for key in OmegaConf.load(f)] for f in sorted(folder.glob("*.yaml"))} for folder in folders}


def refuse_sweep_of_processes(config: DictConfig) -> None:
    """A launcher of subprocesses starts the command again for every rank: with -m that would be the whole sweep.

    Ends the program for more than one device under a multirun.
    """
    trainer = config.get("trainer") or {}
    several = trainer.get("num_nodes", 1) != 1 or trainer.get("devices", 1) not in (1, "1", "auto")
    if HydraConfig.get().mode == RunMode.MULTIRUN and several and "LOCAL_RANK" not in os.environ:
        reason = f"-m with trainer.devices={trainer.get('devices')} would start the whole sweep again in every process"
        sys.exit(tell(f"{reason}: run the jobs one by one, or sweep with trainer.devices=1"))


if __name__ == "__main__":
    main()
