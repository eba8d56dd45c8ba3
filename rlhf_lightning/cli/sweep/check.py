"""Check every value that a sweep names before its first job starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.cli.sweep.jobs import refuse_another_sweep
from rlhf_lightning.cli.user_errors import raise_as_exit
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.composition import check
from rlhf_lightning.training.trainer import process_count


class SweepCheck(Callback):
    """Checks a job for each value of each swept setting, with the first values of the others.

    Exits with code 2 for a wrong value. Values that are only wrong together fail in their job.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        loader = GlobalHydra.instance().config_loader()
        swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        with raise_as_exit():  # Hydra would turn an error of a callback into a warning
            refuse_another_sweep(config)
            parser = OverridesParser.create(config_loader=loader)
            for overrides in jobs_to_check(parser.parse_overrides([*swept, *config.hydra.overrides.task])):
                job = loader.load_sweep_config(config, overrides)
                job = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
                check(job)
                refuse_processes(job)


def jobs_to_check(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job to check: all first values, and every other value in its position."""
    values = [values_of(override) for override in overrides]
    first = [texts[0] for texts in values]
    return [first, *([*first[:i], text, *first[i + 1 :]] for i, texts in enumerate(values) for text in texts[1:])]


def values_of(override: Override) -> list[str]:
    """Expand a swept override to one for each value; to the ends of an interval or a range."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key, value = override.get_key_element(), override.value()
    if override.is_interval_sweep():
        return [f"{key}={value.start}", f"{key}={value.end}"]  # type: ignore[union-attr]
    overrides = [f"{key}={text}" for text in override.sweep_string_iterator()]
    if not overrides:
        raise ConfigError(f"{override.input_line} names no value")
    return [overrides[0], overrides[-1]] if override.is_range_sweep() else overrides


def refuse_processes(config: DictConfig) -> None:
    """Reject a sweep over several processes: every rank would start the whole sweep again.

    Raises:
        ConfigError: more than one process.
    """
    if process_count(config.trainer) > 1:
        requested = " ".join(f"trainer.{name}={config.trainer.get(name)}" for name in ("devices", "num_nodes"))
        raise ConfigError(
            f"-m with {requested} would start the whole sweep again in every process: run the jobs one by one, or sweep with "
            "trainer.devices=1"
        )
