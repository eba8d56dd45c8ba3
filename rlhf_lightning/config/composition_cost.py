"""Less work for Hydra's composition, with the same result.

Hydra has no public hook for either: hence the imports of hydra._internal, pinned by `hydra-core<1.4`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from hydra._internal import defaults_list
from hydra.core.default_element import InputDefault
from hydra.types import RunMode
from omegaconf import DictConfig

MAX_COMPOSITIONS = 32
"""Configurations of a sweep's jobs that are kept, some megabytes each."""


@functools.cache
def defer_interpolation_maps() -> None:
    """Let Hydra map the chosen options only for a default that refers to them.

    It makes the map anew for each of sixty groups, a quarter of the time of a composition, and no default of conf/ refers to another.
    """
    make, resolve = defaults_list._create_interpolation_map, InputDefault._resolve_interpolation_impl

    def resolve_deferred(self: InputDefault, choices: Any, value: str | None) -> str:
        return resolve(self, choices(), value)

    setattr(defaults_list, "_create_interpolation_map", lambda *args: functools.partial(make, *args))
    setattr(InputDefault, "_resolve_interpolation_impl", resolve_deferred)


class SweepCompositions:
    """Compose each job of a sweep once.

    Its values are checked, then Hydra composes it to validate the batch and again to run it.

    Args:
        compose: of Hydra's loader, with a keyword run_mode.
    """

    def __init__(self, compose: Callable[..., DictConfig]) -> None:
        self.compose = compose
        self.in_sweep = False
        self.composed: dict[str, DictConfig] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> DictConfig:
        key = repr((args[1:], kwargs))
        if key in self.composed:
            return copy.deepcopy(self.composed[key])
        config = self.compose(*args, **kwargs)
        if kwargs.get("run_mode") == RunMode.MULTIRUN:
            self.in_sweep |= kwargs.get("validate_sweep_overrides", True)
        elif self.in_sweep and len(self.composed) < MAX_COMPOSITIONS:
            self.composed[key] = copy.deepcopy(config)
        return config
