"""Hydra's override grammar: quote values, expand paths, reject what Hydra would misread."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError

FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m",
    "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i",
)  # fmt: skip
"""Hydra's flags but for --experimental-rerun, which unpickles the file that it is given."""
FLAGS_WITH_VALUE = (
    "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c", "--info", "-i",
)  # fmt: skip
_UNQUOTED = re.compile(r"/[A-Za-z0-9_./-]*|[A-Za-z_][A-Za-z0-9_.-]*/[A-Za-z0-9_./-]+")
_NAME = re.compile(r"[A-Za-z_][\w./@]*")
_COMPARISON = re.compile(r"(?<=[=,])([A-Za-z_][\w/.-]*[<>]=[+\w.-]+)(?=,|$)")
_BLANKS = re.compile(r"(?P<name>[A-Za-z_][\w./@]*)(\s*:\s+|\s+=\s*|=\s+)(?P<value>\S+)")


def quote_value(text: str) -> str:
    """Quote a text so that Hydra reads it unchanged, with its `${x}`, quotes and backslashes."""
    if _UNQUOTED.fullmatch(text):
        return text
    return QuotedString(escape_references(text), Quote.single).with_quotes()


def quote_comparisons(argument: str) -> str:
    """Quote values such as win_rate>=0.65, of which Hydra's grammar doesn't read the `>`."""
    return _COMPARISON.sub(r"'\1'", argument)


def escape_references(text: str) -> str:
    """Escape `${`, so that OmegaConf finds no interpolation in a text."""
    return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)


def check_arguments(args: Sequence[str]) -> None:
    """Reject settings written as flags or with blanks, and unknown flags.

    Raises:
        ConfigError: with the argument as it is to be written.
    """
    for i, argument in enumerate(args):
        if i and args[i - 1] in FLAGS_WITH_VALUE:
            continue
        if argument.startswith("-"):
            _check_flag(argument, args[i + 1] if i + 1 < len(args) else "")
        else:
            _check_blanks(" ".join(args[i : i + 3]))


def _check_flag(argument: str, after: str) -> None:
    flag, equals, value = argument.partition("=")
    if flag in FLAGS or (len(flag) > 3 and any(name.startswith(flag) for name in FLAGS)):  # argparse takes beginnings of long flags
        return
    name = flag.lstrip("-").rstrip(":")
    if equals and _NAME.fullmatch(name):
        raise ConfigError(f"{argument}: a setting has no dashes in front: write {name}={value}")
    if _NAME.fullmatch(name) and after and "=" not in after and after[0] not in "-~+":
        raise ConfigError(f"{argument} {after}: a setting has no dashes in front, and an equals sign: write {name}={after}")
    listed = ", ".join(sorted([*(name for name in FLAGS if name.startswith("--")), "--check"]))
    near = did_you_mean(argument, [*FLAGS, "--check"])
    raise ConfigError(f"unrecognized arguments: {argument}{near}; the flags are {listed}; settings have no dashes in front, as in seed=3")


def _check_blanks(text: str) -> None:
    """Reject `key: value`, `key =value`, `key = value` and `key= value`."""
    match = _BLANKS.match(text)
    if match and "=" not in match["value"] and match["value"][0] not in "-~+":
        raise ConfigError(
            f"{match[0]!r}: a setting is one word, with an equals sign and no blanks around it: write {match['name']}={match['value']}"
        )


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
