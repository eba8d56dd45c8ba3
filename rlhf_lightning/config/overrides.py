"""Words of a command in Hydra's grammar: texts quoted so that they are read as they are, and flags that aren't any."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError

FLAGS_WITH_VALUE = (
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c", "--info", "-i",
)  # fmt: skip
_UNQUOTED = re.compile(r"/[A-Za-z0-9_./-]*|[A-Za-z_][A-Za-z0-9_.-]*/[A-Za-z0-9_./-]+")
_NAME = re.compile(r"[A-Za-z_][\w./@]*")
_BLANKS = re.compile(r"(?P<name>[A-Za-z_][\w./@]*)(\s*:\s+|\s+=\s*|=\s+)(?P<value>\S+)")
_REFUSED = ("--experimental-rerun",)
"""Hydra's flags that aren't taken: this one unpickles the file that it is given."""


def quote_value(text: str) -> str:
    """A text as the value of an override: Hydra and OmegaConf read it as this very text, `${x}`, quotes and backslashes included."""
    if _UNQUOTED.fullmatch(text):
        return text
    return QuotedString(escape_references(text), Quote.single).with_quotes()


def escape_references(text: str) -> str:
    """A text as a value that OmegaConf doesn't take for an interpolation."""
    return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)


def check_words(words: Sequence[str]) -> None:
    """Refuse settings that are written like flags or with blanks, which Hydra's own parser would not understand.

    Raises:
        ConfigError: with the word as it is to be written.
    """
    flags = [flag for flag in get_args_parser()._option_string_actions if flag not in _REFUSED]
    for place, word in enumerate(words):
        if place and words[place - 1] in FLAGS_WITH_VALUE:
            continue
        if word.startswith("-"):
            _check_flag(word, words[place + 1] if place + 1 < len(words) else "", flags)
        else:
            _check_blanks(" ".join(words[place : place + 3]))


def _check_flag(word: str, after: str, flags: Sequence[str]) -> None:
    flag, equals, value = word.partition("=")
    if flag in flags or (len(flag) > 3 and any(name.startswith(flag) for name in flags)):  # argparse takes beginnings of long flags
        return
    name = flag.lstrip("-").rstrip(":")
    if equals and _NAME.fullmatch(name):
        raise ConfigError(f"{word}: a setting has no dashes in front: write {name}={value}")
    if _NAME.fullmatch(name) and after and "=" not in after and after[0] not in "-~+":
        raise ConfigError(f"{word} {after}: a setting has no dashes in front, and an equals sign: write {name}={after}")
    listed = ", ".join(sorted(name for name in flags if name.startswith("--")))
    raise ConfigError(
        f"unrecognized arguments: {word}{did_you_mean(word, flags)}; the flags are {listed}; settings have no dashes in front, as in seed=3"
    )


def _check_blanks(text: str) -> None:
    """Refuse `key: value`, `key =value`, `key = value` and `key= value`."""
    match = _BLANKS.match(text)
    if match and "=" not in match["value"] and match["value"][0] not in "-~+":
        raise ConfigError(
            f"{match[0]!r}: a setting is one word, with an equals sign and no blanks around it: write {match['name']}={match['value']}"
        )
