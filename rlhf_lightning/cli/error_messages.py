"""What a wrong command line is told: Hydra's errors in one line, with the nearest right name."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from rlhf_lightning.config import schema
from rlhf_lightning.config.command_paths import quoting_hint
from rlhf_lightning.config.overrides import FLAGS_WITH_VALUE
from rlhf_lightning.config.presets import list_presets
from rlhf_lightning.config.redaction import safe_message
from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import UserError
from rlhf_lightning.registry import GROUPS, components, section_names, settings_of

MENDABLE = (UserError, HydraException, OmegaConfBaseException, MarkedYAMLError)
FLAGS = ("Config group override must be", "Only one of --run", "The --resolve flag")
"""How Hydra begins the plain ValueErrors that it raises for `advantage=null`, `advantage=3` and flags that exclude each other."""

HYDRA_S = {
    "hydra/launcher": ("rlhf-lightning[sweep]", ("joblib", "submitit_local", "submitit_slurm")),
    "hydra/sweeper": ("rlhf-lightning[optuna]", ("optuna",)),
}
"""Hydra's groups that a sweep chooses from beside `basic`, and what is installed for them."""

Presets = Mapping[str, Mapping[str, Sequence[str]]]
"""The groups of conf/, their options, and each option's settings."""


def is_user_error(error: BaseException) -> bool:
    """Whether the user can mend it: our own errors, Hydra's for what it can't compose, and YAML's."""
    return isinstance(error, MENDABLE) or (isinstance(error, ValueError) and str(error).startswith(FLAGS))


def told(error: BaseException) -> str:
    """What an error that the user can mend says: its own words, or ours for Hydra's."""
    return str(error) if isinstance(error, UserError) else message(error, sys.argv[1:], list_presets())


def tell(error: BaseException) -> int:
    """Print an error that the user can mend, without a traceback. Returns the exit code."""
    print(f"error: {safe_message(told(error))}", file=sys.stderr)
    return 2


def message(error: BaseException, words: Sequence[str], presets: Presets) -> str:
    """One message for an error that Hydra raised while composing: what was wrong, the nearest right name, and the list to choose from.

    Args:
        words: of the command line.
        presets: the choices that are no components.
    """
    if isinstance(error, MarkedYAMLError):
        place = error.problem_mark or error.context_mark
        return f"{place.name}:{place.line + 1} is no YAML: {error.problem or error.context}"
    text = _whole_text(error)
    unread = _unreadable(words, presets)
    if unread:
        return unread
    for pattern, explain in _EXPLAINED:
        found = pattern.search(text)
        if found:
            return explain(found, presets)
    return text.strip()


def _wrong_option(found: re.Match[str], presets: Presets) -> str:
    group, option = found["group"], found["option"]
    if group in HYDRA_S:
        extra, brought = HYDRA_S[group]
        return f"no option {group}={option} is installed{did_you_mean(option, brought)}; pip install '{extra}' brings {', '.join(brought)}"
    names = _options(group, presets)
    return f"no option {group}={option}{did_you_mean(option, names)}; {group} has: {', '.join(names) or 'none'}"


def _one_option(found: re.Match[str], presets: Presets) -> str:
    group = found["group"]
    return f"{group} takes one option, not a list: {', '.join(_options(group, presets))}; `-m {group}=a,b` runs one after the other"


def _wrong_key(found: re.Match[str], presets: Presets) -> str:
    key = found["key"].lstrip("+~")
    top, _, rest = key.partition(".")
    tops = [*GROUPS, *section_names(), *presets, "seed"]
    if top == "hydra":
        return f"Hydra has no setting {rest!r}; `--cfg hydra` shows those it has"
    if top not in tops:
        return f"no setting {key!r}{did_you_mean(top, tops)}; the top of the menu: {', '.join(tops)}"
    if not rest and (top in GROUPS or top in presets):
        return (
            f"a saved configuration takes settings, as in {top}.NAME=VALUE, and no options but its own and those of trainer and logger: "
            f"leave {top}=... out"
        )
    of_option = _settings(top, presets)
    owners = [option for option, settings in of_option.items() if rest in settings]
    if owners:
        adding = f"{top}=[...,{owners[0]}]" if top in GROUPS and GROUPS[top].many else f"{top}={owners[0]}"
        return f"{key} is a setting of {top}={' and '.join(owners)}, which the command doesn't choose: add {adding}, or leave it out"
    settings = list(dict.fromkeys(name for names in of_option.values() for name in names))
    named = [f"{top}.{name}" for name in settings if name.partition(".")[2] == rest]
    if named:
        return f"{top} takes several options, so that a setting names its own: write {' or '.join(named[:4])}"
    near = did_you_mean(rest, settings) or did_you_mean(rest.split(".")[-1], settings)
    return f"{top} has no setting {rest!r}{near}; it has: {_listed(of_option)}"


def _wrong_value(found: re.Match[str], presets: Presets) -> str:
    return f"{found['key']}: {found['what'].strip()}"


def _unresolved(found: re.Match[str], presets: Presets) -> str:
    return f"{found['key']} refers to what isn't there: {found['what']}"


def _deleted(found: re.Match[str], presets: Presets) -> str:
    return f"{found['key']} can't be taken out; leave it alone or set it to another value"


def _no_config(found: re.Match[str], presets: Presets) -> str:
    return f"no configuration {found['name']!r} where --config-path or --config-dir points to; without --config-name it is 'config'"


def _has_value(found: re.Match[str], presets: Presets) -> str:
    return f"{found['key']} has a value already: write {found['key']}=... without the +"


def _sweep(found: re.Match[str], presets: Presets) -> str:
    return f"{found['word']} names several: `-m {found['word']}` runs one after the other, and a list is written {found['key']}=[a,b]"


_CANT = (
    r"Value .*? could not be converted to \w+|Value '[^$].*? is not a valid bool.*|.*cannot be assigned.*|.*is not supported.*"
    r"|[^\n]*is not (?:o|O)ptional[^\n]*"
)
_EXPLAINED = (
    (re.compile(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]*)'"), _wrong_option),
    (re.compile(r"In '(?P<group>[^']+)/[^']+': ValidationError[\s\S]*Config is not a subclass of Config"), _one_option),
    (re.compile(r"Cannot find primary config '(?P<name>[^']+)'"), _no_config),
    (re.compile(r"Ambiguous value for argument '(?P<word>(?P<key>[^'=]+)=[^']*)'"), _sweep),
    (re.compile(r"Could not override '(?P<key>[^']+)'\."), _wrong_key),
    (re.compile(r"Key '[^']+' (?:is )?not in '[^']+'[\s\S]*?full_key: (?P<key>\S+)"), _wrong_key),
    (re.compile(r"(?P<what>Interpolation key [^\n]+|Environment variable '[^']+' not found)[\s\S]*?full_key: (?P<key>\S+)"), _unresolved),
    (re.compile(r"Could not delete from config\. '(?P<key>[^']+)' does not exist"), _wrong_key),
    (re.compile(r"Could not append to config\. An item is already at '(?P<key>[^']+)'"), _has_value),
    (re.compile(r"does not support deletion[\s\S]*?full_key: (?P<key>\S+)"), _deleted),
    (re.compile(rf"(?P<what>{_CANT})[\s\S]*full_key: (?P<key>\S+)"), _wrong_value),
)


def _unreadable(words: Sequence[str], presets: Presets) -> str:
    """'' where every word of the command can be read as `key=value`, else what is wrong with the first that can't."""
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or before in FLAGS_WITH_VALUE:
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            if hint := quoting_hint(word):
                return f"{word!r} can't be read: a value with other characters than letters, digits and ./-_ is quoted: write {hint}"
            return (
                f"{word!r} can't be read: write group=option or section.setting=value, a list in quotes: 'feedback_format=[edit,pairwise]'"
            )
        group = override.key_or_group
        if not group:
            return f"{word!r} sets nothing: there is no name before the ="
        names = _options(group, presets)
        value = override._value
        if names and not override.is_delete() and not override.is_sweep_override() and not isinstance(value, (str, list, dict)):
            shown = word.partition("=")[2]
            return f"no option {group}={shown}; {group} has: {', '.join(names)}; `~{group}` chooses none"
    return ""


def _options(group: str, presets: Presets) -> list[str]:
    return [*(component.name for component in (components(group) if group in GROUPS else ())), *presets.get(group, ())]


def _settings(top: str, presets: Presets) -> dict[str, list[str]]:
    """The settings below a name of the top, by option; those of a section under ''."""
    if top in GROUPS:
        many = GROUPS[top].many
        return {c.name: [f"{c.name}." * many + s.name for s in schema.settings_of(c.target)] for c in components(top)}
    if top in presets:
        return {option: list(settings) for option, settings in presets[top].items()}
    return {"": settings_of(top)} if top in section_names() else {}


def _listed(of_option: Mapping[str, Sequence[str]]) -> str:
    """Settings by option, or once where all options have the same."""
    known = {option: ", ".join(settings) for option, settings in of_option.items() if settings}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return "; ".join(f"{settings} ({option})" for option, settings in known.items()) or "none"


def _whole_text(error: BaseException) -> str:
    """The error and its causes: Hydra puts OmegaConf's reason into the cause."""
    texts = []
    current: BaseException | None = error
    while current is not None:
        texts.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(texts)
