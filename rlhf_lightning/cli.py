"""The command line: load components -> compose -> check -> run the stage -> return one number."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning import menu, wrong_command
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.registry import build, check, load_components
from rlhf_lightning.run import Run

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def main() -> None:
    """`python train.py` and `rlhf-lightning`. Exits with 0, with 1 after an error of the run, with 2 after a wrong command."""
    for line in load_components():
        print(line, file=sys.stderr)
    if sys.argv[1:2] == ["components"]:
        return list_components(sys.argv[2:])
    if {"--help", "-h"} & set(sys.argv[1:]):
        return menu.print_help(list_presets(CONF))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are told below in one way
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_job)()
    except UserError as error:
        sys.exit(tell(str(error)))
    except wrong_command.HYDRA_ERRORS as error:
        sys.exit(tell(wrong_command.message(error)))


def run_job(config: DictConfig) -> float:
    """One job: the whole run of one composed configuration. Returns the number that a sweep optimises.

    A module-level function, so that the workers of a sweep find it by import.
    """
    load_components()
    check(config)
    refuse_sweep_of_processes(config)
    run = Run(config, Path(HydraConfig.get().runtime.output_dir))
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    try:
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


def tell(message: str) -> int:
    """An error that the user can mend, without a traceback."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def list_presets(conf: Path) -> dict[str, list[str]]:
    """The YAML groups of conf/ with their options."""
    return {folder.name: sorted(f.stem for f in folder.glob("*.yaml")) for folder in sorted(conf.iterdir()) if folder.is_dir()}


def refuse_sweep_of_processes(config: DictConfig) -> None:
    """A launcher of subprocesses starts the command again for every rank: with -m that would be the whole sweep.

    Raises:
        ConfigError: more than one device under a multirun.
    """
    trainer = config.trainer
    several = trainer.num_nodes != 1 or trainer.devices not in (1, "1", "auto")
    if HydraConfig.get().mode == RunMode.MULTIRUN and several and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            f"-m with trainer.devices={trainer.devices} would start the whole sweep again in every process: run the jobs one by one, "
            "or sweep with trainer.devices=1"
        )


if __name__ == "__main__":
    main()
