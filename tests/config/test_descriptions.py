"""Every setting has a description, from its docstring."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf_lightning import registry
from rlhf_lightning.config.descriptions import descriptions_of
from rlhf_lightning.tracking.logger_settings import LOGGERS
from rlhf_lightning.training.trainer import TrainerSettings

registry.load_components()
TARGETS: dict[str, Callable[..., Any]] = {
    **{f"{c.group}={c.name}": c.target for c in registry.components()},
    **{name: registry.section_class(name) for name in registry.section_names()},
    "trainer": TrainerSettings,
    **{f"logger={name}": settings for name, settings in LOGGERS.items()},
}
ELLIPSIS = re.compile(r"(of|as in|as for)\b")
"""Beginnings that say nothing without the setting's name or another option."""


def test_every_setting_has_a_description():
    """An entry `name: text` under Args or Attributes of the component's or section's docstring."""
    described = {f"{key} {name}": text for key, target in TARGETS.items() for name, text in descriptions_of(target).items()}
    assert [setting for setting, text in described.items() if not text] == []
    assert [f"{setting}: {text}" for setting, text in described.items() if ELLIPSIS.match(text)] == []


@dataclass
class Base:
    """Settings.

    Attributes:
        rate: of the base.
        steps, width: numbers of both,
            continued on a second line.
    """

    rate: float = 1.0
    steps: int = 2


@dataclass
class Derived(Base):
    """Other settings.

    Attributes:
        rate: its own description: with a colon.
    """

    width: int = 3
    height: int = 4


def test_entries_are_inherited_replaced_and_shared():
    shared = "numbers of both, continued on a second line."
    assert descriptions_of(Derived) == {"rate": "its own description: with a colon.", "steps": shared, "width": shared, "height": ""}


def scale(x: float, *, factor: float = 1.0, offset: float = 0.0) -> float:
    """Scale a number.

    Args:
        x: no setting.
        factor: multiplies x.
    """
    return x * factor + offset


def test_positional_parameters_are_no_settings():
    assert descriptions_of(scale) == {"factor": "multiplies x.", "offset": ""}
