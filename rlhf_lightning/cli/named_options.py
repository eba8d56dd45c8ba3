"""`feedback_source=[csv,late:csv]`: an option twice in a group, the second under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, OPTION_NAME

_LIST = re.compile(r"(?P<group>\w+)=\[(?P<items>[^\[\]{}]*:[^\[\]{}]*)\]")


def expand_named_options(args: Sequence[str]) -> list[str]:
    """Replace NAME:OPTION in a group's list by Hydra's `+GROUP@GROUP.NAME=OPTION`.

    Raises:
        ConfigError: a name that is no word, or twice in the list.
    """
    return [part for argument in args for part in _expand(argument)]


def _expand(argument: str) -> list[str]:
    match = _LIST.fullmatch(argument)
    if match is None or match["group"] not in GROUPS or not GROUPS[match["group"]].many:
        return [argument]
    group, items = match["group"], [item.strip() for item in match["items"].split(",")]
    plain, named = [item for item in items if ":" not in item], [item.split(":", 1) for item in items if ":" in item]
    names = [*plain, *(name.strip() for name, _ in named)]
    wrong = next((name for name in names if not OPTION_NAME.fullmatch(name) or names.count(name) > 1), None)
    if wrong is not None:
        raise ConfigError(f"{argument}: {wrong!r} must be a word, once in the list: write {group}=[csv,late:csv] and {group}.late.*")
    return [f"{group}=[{','.join(plain)}]", *(f"+{group}@{group}.{name.strip()}={option.strip()}" for name, option in named)]
