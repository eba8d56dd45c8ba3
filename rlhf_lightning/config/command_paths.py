"""Expand `~` in a command's paths, and quote values that Hydra can't read unquoted."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

_FLAGS = ("--config-path", "-cp", "--config-dir", "-cd")
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
"""Hydra's settings that name folders; they have none of our types."""
_OVERRIDE = re.compile(r"(?P<key>[+~]*[A-Za-z_][\w./@-]*)=(?P<value>.+)", re.DOTALL)
_HOME = re.compile(r"~[\w.-]*(?:/[^,\[\](){}'\"\\$]*)?")
"""A path below a home folder that is neither a list nor a choice of several."""


def expand_home(args: Sequence[str]) -> list[str]:
    """Expand `~` in the paths of a command: `key=~/x`, `--config-path ~/x`, `resume=~/x`."""
    return [_expand(argument, before in _FLAGS) for before, argument in zip(["", *args], args, strict=False)]


def _expand(argument: str, is_folder: bool) -> str:
    if is_folder:
        return os.path.expanduser(argument)
    key, equals, value = argument.partition("=")
    if not equals or (not _OVERRIDE.fullmatch(argument) and key not in _FLAGS):
        return argument
    if key in (*_FLAGS, "resume"):
        return f"{key}={os.path.expanduser(value)}"
    if _HOME.fullmatch(value):
        return f"{key}={double_quote(os.path.expanduser(value))}"
    inner = value[1:-1]
    if key in _FOLDERS and value in (f"'{inner}'", f'"{inner}"') and inner.startswith("~"):
        return f"{key}={value[0]}{os.path.expanduser(inner)}{value[0]}"
    return argument


def double_quote(value: str) -> str:
    """Put a value in double quotes for Hydra, unless it can be read without."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    return QuotedString(value, Quote.double).with_quotes()


def quoting_hint(argument: str) -> str:
    """The argument with its value quoted for a shell; "" if that doesn't help or a list was meant."""
    match = _OVERRIDE.fullmatch(argument)
    if match is None or match["value"][0] in "[{('\"":
        return ""
    override = f"{match['key']}={double_quote(match['value'])}"
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return ""
    return shlex.quote(override)
