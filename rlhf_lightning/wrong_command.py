"""What a wrong command line is told: Hydra's errors in one line, with the nearest right name."""

from __future__ import annotations

import re

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from rlhf_lightning.registry import GROUPS, components, section_names, settings_of
from rlhf_lightning.schema import did_you_mean

HYDRA_ERRORS = (HydraException, OmegaConfBaseException)


def message(error: BaseException) -> str:
    """One message for an error that Hydra raised while composing: what was wrong, the nearest right name, and the list to choose from."""
    text = _whole_text(error)
    for pattern, explain in ((_OPTION, _wrong_option), (_NO_GROUP, _wrong_key), (_NO_KEY, _wrong_key), (_VALUE, _wrong_value)):
        found = pattern.search(text)
        if found:
            return explain(found)
    return text.strip()


_OPTION = re.compile(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'")
_NO_GROUP = re.compile(r"Could not override '(?P<key>[^']+)'\.\s+No match in the defaults list")
_NO_KEY = re.compile(r"Could not override '(?P<key>[^']+)'\.")
_CANT = r"Value .*? could not be converted to \w+|.*cannot be assigned.*|.*is not supported.*|.*is not optional.*"
_VALUE = re.compile(rf"(?P<what>{_CANT})[\s\S]*full_key: (?P<key>\S+)")


def _wrong_option(found: re.Match[str]) -> str:
    group, option = found["group"], found["option"]
    names = [c.name for c in components(group)] if group in GROUPS else []
    listed = f"; {group} has: {', '.join(names)}" if names else ""
    return f"no option {group}={option}{did_you_mean(option, names)}{listed}"


def _wrong_key(found: re.Match[str]) -> str:
    key = found["key"].removeprefix("+")
    top, _, rest = key.partition(".")
    tops = [*GROUPS, *section_names(), "trainer", "logger", "experiment", "seed"]
    if top not in tops:
        return f"no setting {key!r}{did_you_mean(top, tops)}; the top of the menu: {', '.join(tops)}"
    settings = settings_of(top)
    listed = f"; it has: {', '.join(settings)}" if settings else ""
    nearest = did_you_mean(rest.split(".")[-1], [s.split(".")[-1] for s in settings])
    return f"{top} has no setting {rest!r}{nearest}{listed}"


def _wrong_value(found: re.Match[str]) -> str:
    return f"{found['key']}: {found['what'].strip()}"


def _whole_text(error: BaseException) -> str:
    """The error and its causes: Hydra puts OmegaConf's reason into the cause."""
    texts = []
    current: BaseException | None = error
    while current is not None:
        texts.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(texts)
