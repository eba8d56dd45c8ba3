"""Before a sweep: every value that it names is checked, so that a wrong one is refused before the first job starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.cli import error_messages
from rlhf_lightning.cli.sweep.resume import refuse_another_sweep
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.composition import check
from rlhf_lightning.training.trainer import processes


class SweepCheck(Callback):
    """Composes and checks a job for each value of each swept setting, beside the first values of the others; ends the program with 2 where
    one is wrong. What only goes wrong together is left to its job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        loader = GlobalHydra.instance().config_loader()
        swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        try:
            refuse_another_sweep(config)
            for words in tried(OverridesParser.create(config_loader=loader).parse_overrides([*swept, *config.hydra.overrides.task])):
                job = loader.load_sweep_config(config, words)
                job = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
                check(job)
                refuse_processes(job)
        except Exception as error:
            if not error_messages.is_user_error(error):
                raise
            sys.exit(error_messages.tell(error))  # Hydra would turn an error of a callback into a warning


def tried(overrides: Sequence[Override]) -> list[list[str]]:
    """The words of the jobs to check: the first value of each setting, and every other value in its place."""
    values = [values_of(override) for override in overrides]
    first = [words[0] for words in values]
    return [first, *([*first[:i], word, *first[i + 1 :]] for i, words in enumerate(values) for word in words[1:])]


def values_of(override: Override) -> list[str]:
    """A word as it is, or a word for each value that it sweeps over; the ends of an interval or a range."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key, value = override.get_key_element(), override.value()
    if override.is_interval_sweep():
        return [f"{key}={value.start}", f"{key}={value.end}"]  # type: ignore[union-attr]
    words = [f"{key}={text}" for text in override.sweep_string_iterator()]
    if not words:
        raise ConfigError(f"{override.input_line} names no value")
    return [words[0], words[-1]] if override.is_range_sweep() else words


def refuse_processes(config: DictConfig) -> None:
    """A launcher of subprocesses starts the command again for every rank: with -m that would be the whole sweep.

    Raises:
        ConfigError: more than one process.
    """
    if processes(config.trainer) > 1:
        asked = " ".join(f"trainer.{name}={config.trainer.get(name)}" for name in ("devices", "num_nodes"))
        raise ConfigError(
            f"-m with {asked} would start the whole sweep again in every process: run the jobs one by one, or sweep with trainer.devices=1"
        )
