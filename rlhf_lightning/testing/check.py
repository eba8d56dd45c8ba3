"""`check_component`: the contract of a group, for built-in options and plugins."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, Component, component_of, make, option
from rlhf_lightning.testing import data_contracts, policy_contracts, reward_contracts, training_contracts
from rlhf_lightning.testing.trial import Trial, compose_command

CONTRACTS: dict[str, Callable[[Trial], None]] = {
    **data_contracts.CONTRACTS, **reward_contracts.CONTRACTS,
    **policy_contracts.CONTRACTS, **training_contracts.CONTRACTS
}  # fmt: skip
"""By group."""
UNKNOWN = "nothing_of_this_name"


def check_component(group: str, name: str, *, example: Any = None, **settings: Any) -> None:
    """Check an option against the contract of its group.

    It is chosen by `group=name`, rejects unknown settings, and returns what its callers rely on: shapes, gradients, masks.

    Args:
        example: a row, a text or a file's content that it reads, where the contract's own doesn't fit.
        settings: what it is made with beyond its defaults.

    Raises:
        AssertionError: it breaks the contract.
        ConfigError: no such option, or a setting that it doesn't take.
    """
    check_option(group, name)
    check_contract(group, name, example=example, **settings)


def check_contract(group: str, name: str, *, example: Any = None, **settings: Any) -> None:
    """Check the contract of the group alone, with the arguments of `check_component`."""
    with tempfile.TemporaryDirectory() as folder:
        CONTRACTS[group](Trial(option(group, name), settings, example, Path(folder)))


def check_option(group: str, name: str) -> None:
    """Check that `group=name` is an option and rejects unknown settings."""
    component = option(group, name)
    check_chosen(component)
    check_unknown_setting(component)


def check_chosen(component: Component) -> None:
    """Check that `group=name` chooses the component."""
    many = GROUPS[component.group].many
    config = compose_command(f"{component.group}=[{component.name}]" if many else f"{component.group}={component.name}")
    node = config[component.group][component.name] if many else config[component.group]
    assert component_of(node) is component, f"{component.group}={component.name} chooses another component"


def check_unknown_setting(component: Component) -> None:
    """Check that a setting that the component doesn't declare is rejected by name."""
    message = ""
    try:
        make(component.group, component.name, {UNKNOWN: 1})
    except ConfigError as error:
        message = str(error)
    assert UNKNOWN in message, f"{component.group}={component.name} takes the unknown setting {UNKNOWN}"
