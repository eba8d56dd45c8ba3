"""Descriptions of settings, from the docstrings of components and sections."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from rlhf_lightning.config.schema import settings_of

_ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8,}.*)*)", re.MULTILINE)


@functools.cache
def descriptions_of(target: Callable[..., Any]) -> Mapping[str, str]:
    """The description of each setting of a component or section, "" without one.

    A docstring's entry under Args or Attributes is `name: text`, or `name, name: text` for several. A class inherits the entries of its
    bases.
    """
    entries: dict[str, str] = {}
    for owner in reversed(inspect.getmro(target) if inspect.isclass(target) else [target]):
        for match in _ENTRY.finditer(inspect.cleandoc(owner.__doc__ or "")):
            entries |= dict.fromkeys(match["names"].split(", "), " ".join(match["text"].split()))
    return {setting.name: entries.get(setting.name, setting.description) for setting in settings_of(target)}
