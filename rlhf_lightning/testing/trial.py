"""An option under test, and the configuration that chooses it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlhf_lightning.config import schema
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.registry import Component, make


@dataclass(frozen=True)
class Trial:
    """An option under test.

    Attributes:
        component: the option.
        settings: what it is made with.
        example: a row, a text or a file's content that it reads; None for the contract's own.
        folder: an empty folder.
    """

    component: Component
    settings: dict[str, Any]
    example: Any
    folder: Path

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.component.target)

    def has(self, setting: str) -> bool:
        """Tell whether the test leaves a setting of this name unset."""
        names = {declared.name for declared in schema.settings_of(self.component.target)}
        return setting in names - self.settings.keys()

    def make(self, *args: Any, **settings: Any) -> Any:
        """Make the component from its run-time arguments."""
        return make(self.component.group, self.component.name, {**self.settings, **settings}, *args)


def compose_command(*overrides: str) -> DictConfig:
    """Compose the configuration of a command."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))
