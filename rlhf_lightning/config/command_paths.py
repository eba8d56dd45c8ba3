"""Paths on the command line: `~` is the home folder, and a value that Hydra can't read unquoted comes back with its quotes."""

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
"""Settings of Hydra's that name folders and take no type of ours."""
_WORD = re.compile(r"(?P<key>[+~]*[A-Za-z_][\w./@-]*)=(?P<value>.+)", re.DOTALL)
_HOME = re.compile(r"~[\w.-]*(?:/[^,\[\](){}'\"\\$]*)?")
"""A path below a home folder that is neither a list nor a choice of several."""


def expand_home(words: Sequence[str]) -> list[str]:
    """The words of a command with the home folder in the place of `~` in paths: `key=~/x`, `--config-path ~/x`, `resume=~/x`."""
    return [_expanded(word, before in _FLAGS) for before, word in zip(["", *words], words, strict=False)]


def _expanded(word: str, is_folder: bool) -> str:
    if is_folder:
        return os.path.expanduser(word)
    key, equals, value = word.partition("=")
    if not equals or (not _WORD.fullmatch(word) and key not in _FLAGS):
        return word
    if key in (*_FLAGS, "resume"):
        return f"{key}={os.path.expanduser(value)}"
    if _HOME.fullmatch(value):
        return f"{key}={hydra_quoted(os.path.expanduser(value))}"
    inner = value[1:-1]
    if key in _FOLDERS and value in (f"'{inner}'", f'"{inner}"') and inner.startswith("~"):
        return f"{key}={value[0]}{os.path.expanduser(inner)}{value[0]}"
    return word


def hydra_quoted(value: str) -> str:
    """A value as Hydra reads it back to the letter: plain where it can be, else in double quotes."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    return QuotedString(value, Quote.double).with_quotes()


def quoting_hint(word: str) -> str:
    """The word as it is typed in a shell with its value in quotes; '' where quotes make no readable word of it, or a list was meant."""
    found = _WORD.fullmatch(word)
    if found is None or found["value"][0] in "[{('\"":
        return ""
    quoted = f"{found['key']}={hydra_quoted(found['value'])}"
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return ""
    return shlex.quote(quoted)
