"""The overrides of a proposal, written as Hydra reads them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.registry import option

if TYPE_CHECKING:
    from rlhf_lightning.feedback.proposal.candidate import Candidate
    from rlhf_lightning.feedback.proposal.detect import Sample

_BARE = re.compile(r"[A-Za-z_][\w.]*")
_CONSTANTS = frozenset({"true", "false", "null", "nan", "inf"})
_SPECIAL = re.compile(r"([\\()\[\]{}:=,\s])")


def hydra_value(value: Any) -> str:
    """Write a value in Hydra's grammar; every text stays the same text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}" if float(value).is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, str):
        is_bare = _BARE.fullmatch(value) and value.isascii() and value.lower() not in _CONSTANTS
        return value if is_bare else quote_value(value)
    if isinstance(value, Mapping):
        pairs = [f"{_escape_key(str(key))}: {hydra_value(inner)}" for key, inner in value.items()]
        return "{" + ", ".join(pairs) + "}"
    return "[" + ",".join(map(hydra_value, value)) + "]"


def _escape_key(key: str) -> str:
    """A key of a dictionary: Hydra takes none in quotes."""
    return _SPECIAL.sub(lambda match: f"\\{match[1]}", key)


def read_command(sample: Sample, candidates: Sequence[Candidate], has_bad_rows: bool) -> list[str]:
    """Write the overrides that read the sample's file by these candidates, without defaults."""
    source = f"feedback_source.{sample.source}"
    columns = [path for candidate in candidates for path in _fields_read(sample, candidate)]
    settings: dict[str, Any] = {"path": sample.path, **sample.typed_settings(columns)}
    for candidate in candidates:
        settings |= {"explode": candidate.explode} if candidate.explode else {}
        settings |= {"rename": settings.get("rename", {}) | dict(candidate.rename)} if candidate.rename else {}
        if candidate.ignore_fields:
            settings["ignore_fields"] = tuple(dict.fromkeys([*settings.get("ignore_fields", ()), *candidate.ignore_fields]))
    overrides = [f"feedback_source={sample.source}", *(f"{source}.{name}={hydra_value(value)}" for name, value in settings.items())]
    overrides.append(f"feedback_format=[{','.join(candidate.format for candidate in candidates)}]")
    if has_bad_rows:
        overrides.append("feedback.on_bad=quarantine")
    for candidate in candidates:
        overrides += [f"feedback_format.{candidate.format}.{name}={hydra_value(value)}" for name, value in _non_defaults(candidate)]
    return overrides


def _fields_read(sample: Sample, candidate: Candidate) -> list[str]:
    """Columns of the table that the candidate reads as numbers, booleans, lists or dates."""
    flat = [item for value in candidate.settings.values() for item in (value if isinstance(value, tuple) else [value])]
    names = {item for item in flat if isinstance(item, str)} | set(candidate.rename) | {"time", "seconds", "weight"}
    return [name for name in sample.types if name in names]


def _non_defaults(candidate: Candidate) -> list[tuple[str, Any]]:
    parameters = inspect.signature(option("feedback_format", candidate.format).target).parameters
    return [(name, value) for name, value in candidate.settings.items() if parameters[name].default != value]
