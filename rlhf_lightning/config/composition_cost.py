"""Less work for Hydra's composition, with the same result.

Hydra has no public hook for any of it: hence the imports of hydra._internal, pinned by `hydra-core<1.4`.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra.core.utils
import hydra.version
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.default_element import InputDefault
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.base import Metadata
from omegaconf.errors import OmegaConfBaseException

from rlhf_lightning.config.yaml_dump import to_yaml

MAX_COMPOSITIONS = 32
"""Configurations of a sweep's jobs that are kept, some megabytes each."""


@functools.cache
def reduce_work() -> None:
    """Let Hydra merge all options at once, and map them where a default refers to them."""
    _defer_interpolation_maps()
    setattr(Metadata, "__deepcopy__", _copy_metadata)
    setattr(hydra.core.utils, "_save_config", _save_config)
    setattr(hydra.version, "_get_version", functools.cache(hydra.version._get_version))
    setattr(
        ConfigLoaderImpl,
        "_compose_config_from_defaults_list",
        functools.partialmethod(_merge_at_once, ConfigLoaderImpl._compose_config_from_defaults_list),
    )


def _merge_at_once(
    self: ConfigLoaderImpl, merge_each: Callable[..., DictConfig], defaults: Any, repo: CachingConfigRepository
) -> DictConfig:
    """Merge the options by one call: after each, OmegaConf walks all that has been merged before.

    Options that no package embeds in a copy are copied here, since those of `StructuredConfigSource` are shared.
    """
    configs = []
    for default in defaults:
        config = self._load_single_config(default=default, repo=repo).config
        shared: Any = repo.load_config(default.config_path)
        configs.append(copy.deepcopy(config) if config is shared.config else config)
    merged = OmegaConf.create()
    try:
        with flag_override(merged, "no_deepcopy_set_nodes", True):
            merged.merge_with(*configs)
    except OmegaConfBaseException:
        return merge_each(self, defaults, CachingConfigRepository(repo.delegate))  # it names the file
    loader = SimpleNamespace(_load_single_config=lambda **_: SimpleNamespace(config=merged))
    return merge_each(loader, [SimpleNamespace(config_path="")], repo)


def _copy_metadata(self: Metadata, memo: dict[int, Any]) -> Metadata:
    """Copy the flags and cached values of a node of OmegaConf, and share its types and names."""
    memo[id(self)] = copied = object.__new__(type(self))
    cache = copy.deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
    copied.__dict__.update(self.__dict__, flags=None if self.flags is None else dict(self.flags), resolver_cache=cache)
    return copied


def _save_config(config: DictConfig, filename: str, output_dir: Path) -> None:
    """Save one of Hydra's files."""
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / filename).write_text(to_yaml(OmegaConf.to_container(config, resolve=False, enum_to_str=True)), encoding="utf-8")


def _defer_interpolation_maps() -> None:
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
