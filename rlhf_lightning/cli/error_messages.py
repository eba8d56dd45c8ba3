"""Explain Hydra's and YAML's errors in one line, with the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from rlhf_lightning.cli.foreign_terms import explain_foreign_terms
from rlhf_lightning.config import schema
from rlhf_lightning.config.overrides import FLAGS_WITH_VALUE, quoting_hint
from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.registry import GROUPS, components, section_names, settings_of

HYDRA_GROUPS = {
    "hydra/launcher": ("rlhf-lightning[sweep]", ("joblib", "submitit_local", "submitit_slurm")),
    "hydra/sweeper": ("rlhf-lightning[optuna]", ("optuna",)),
}
"""Hydra's groups that a sweep chooses from besides `basic`: the extra to install, and the options it brings."""

Presets = Mapping[str, Mapping[str, Sequence[str]]]
"""The groups of conf/, their options, and each option's settings."""


def explain_hydra_error(error: BaseException, args: Sequence[str], presets: Presets) -> str:
    """Explain an error of composing: the cause, the nearest right name, and the names to choose from.

    Args:
        args: of the command line.
        presets: the choices that are no components.
    """
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{mark.name}:{mark.line + 1} is not valid YAML: {error.problem or error.context}"
    if unreadable := _explain_unreadable(args, presets):
        return unreadable
    if foreign := explain_foreign_terms(args, presets):
        return foreign
    text = _chained_text(error)
    for pattern, explanation in _EXPLANATIONS:
        if match := pattern.search(text):
            parts = {name: part.strip() for name, part in match.groupdict().items()}
            return explanation.format(**parts) if isinstance(explanation, str) else explanation(match, presets)
    return text.strip()


def _explain_option(match: re.Match[str], presets: Presets) -> str:
    group, option = match["group"], match["option"]
    if group in HYDRA_GROUPS:
        extra, options = HYDRA_GROUPS[group]
        return f"no option {group}={option} is installed{did_you_mean(option, options)}; pip install '{extra}' brings {', '.join(options)}"
    names = _options(group, presets)
    return f"no option {group}={option}{did_you_mean(option, names)}; {group} has: {', '.join(names) or 'none'}"


def _explain_list(match: re.Match[str], presets: Presets) -> str:
    group = match["group"]
    return f"{group} takes one option, not a list: {', '.join(_options(group, presets))}; `-m {group}=a,b` runs one after the other"


def _explain_key(match: re.Match[str], presets: Presets) -> str:
    key = match["key"].lstrip("+~")
    top, _, rest = key.partition(".")
    tops = [*GROUPS, *section_names(), *presets, "seed", "push"]
    # A name that doesn't exist at the top.
    if top == "hydra":
        return f"Hydra has no setting {rest!r}; `--cfg hydra` shows those it has"
    if top not in tops:
        return f"no setting {key!r}{did_you_mean(top, tops)}; the top of the menu: {', '.join(tops)}"
    if not rest and (top in GROUPS or top in presets):
        return (
            f"a saved configuration takes settings, as in {top}.NAME=VALUE, and no options but its own and those of trainer and logger: "
            f"leave {top}=... out"
        )
    # A setting of an option that isn't chosen.
    of_option = _settings(top, presets)
    owners = [option for option, settings in of_option.items() if rest in settings]
    if owners:
        adding = f"{top}=[...,{owners[0]}]" if top in GROUPS and GROUPS[top].many else f"{top}={owners[0]}"
        return f"{key} is a setting of {top}={' and '.join(owners)}, which the command doesn't choose: add {adding}, or leave it out"
    # A setting without its option, or a misspelt one.
    settings = list(dict.fromkeys(name for names in of_option.values() for name in names))
    candidates = [f"{top}.{name}" for name in settings if name.partition(".")[2] == rest]
    if candidates:
        return f"{top} takes several options, and a setting is written with its option: write {' or '.join(candidates[:6])}"
    near = did_you_mean(rest, settings) or did_you_mean(rest.split(".")[-1], settings)
    return f"{top} has no setting {rest!r}{near}; it has: {_format_settings(of_option)}"


_CANNOT = (
    r"Value .*? could not be converted to \w+|Value '[^$].*? is not a valid bool.*|.*cannot be assigned.*|.*is not supported.*"
    r"|[^\n]*is not (?:o|O)ptional[^\n]*"
)
_EXPLANATIONS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str], Presets], str]], ...] = (
    (re.compile(r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]*)'"), _explain_option),
    (re.compile(r"In '(?P<group>[^']+)/[^']+': ValidationError[\s\S]*Config is not a subclass of Config"), _explain_list),
    (
        re.compile(r"Cannot find primary config '(?P<name>[^']+)'"),
        "no configuration {name!r} where --config-path or --config-dir points to; without --config-name it is 'config'",
    ),
    (
        re.compile(r"Ambiguous value for argument '(?P<word>(?P<key>[^'=]+)=[^']*)'"),
        "{word} has several values: `-m {word}` runs one after the other, and a list is written {key}=[a,b]",
    ),
    (re.compile(r"Could not override '(?P<key>[^']+)'\."), _explain_key),
    (re.compile(r"Key '[^']+' (?:is )?not in '[^']+'[\s\S]*?full_key: (?P<key>\S+)"), _explain_key),
    (
        re.compile(r"(?P<what>Interpolation key [^\n]+|Environment variable '[^']+' not found)[\s\S]*?full_key: (?P<key>\S+)"),
        "{key} refers to something that doesn't exist: {what}",
    ),
    (re.compile(r"Could not delete from config\. '(?P<key>[^']+)' does not exist"), _explain_key),
    (
        re.compile(r"Could not append to config\. An item is already at '(?P<key>[^']+)'"),
        "{key} already has a value: write {key}=... without the +",
    ),
    (
        re.compile(r"does not support deletion[\s\S]*?full_key: (?P<key>\S+)"),
        "{key} cannot be deleted; leave it alone or set it to another value",
    ),
    (re.compile(rf"(?P<what>{_CANNOT})[\s\S]*full_key: (?P<key>\S+)"), "{key}: {what}"),
)


def _explain_unreadable(args: Sequence[str], presets: Presets) -> str:
    """The explanation of the first argument that is no `key=value`; "" where all are."""
    for before, argument in zip(["", *args], args, strict=False):
        if argument.startswith("-") or before in FLAGS_WITH_VALUE:
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            if hint := quoting_hint(argument):
                return f"{argument!r} can't be read: a value with other characters than letters, digits and ./-_ is quoted: write {hint}"
            shape = "write group=option or section.setting=value, a list in quotes: 'feedback_format=[edit,pairwise]'"
            return f"{argument!r} can't be read: {shape}"
        group = override.key_or_group
        if not group:
            return f"{argument!r} sets nothing: there is no name before the ="
        names = _options(group, presets)
        chooses = override.is_delete() or override.is_sweep_override() or isinstance(override.value(), (str, list, dict))
        if names and not chooses:
            value = argument.partition("=")[2]
            return f"no option {group}={value}; {group} has: {', '.join(names)}; `~{group}` chooses none"
    return ""


def _options(group: str, presets: Presets) -> list[str]:
    return [*(component.name for component in (components(group) if group in GROUPS else ())), *presets.get(group, ())]


def _settings(top: str, presets: Presets) -> dict[str, list[str]]:
    """The settings of a group by option; those of a section under ""."""
    if top in GROUPS:
        many = GROUPS[top].many
        return {c.name: [f"{c.name}." * many + s.name for s in schema.settings_of(c.target)] for c in components(top)}
    if top in presets:
        return {option: list(settings) for option, settings in presets[top].items()}
    return {"": settings_of(top)} if top in section_names() else {}


def _format_settings(of_option: Mapping[str, Sequence[str]]) -> str:
    """List the settings by option, or once where all options have the same."""
    names = {option: ", ".join(settings) for option, settings in of_option.items() if settings}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return "; ".join(f"{settings} ({option})" for option, settings in names.items()) or "none"


def _chained_text(error: BaseException) -> str:
    """The texts of the error and its causes: Hydra puts OmegaConf's reason into the cause."""
    texts = []
    current: BaseException | None = error
    while current is not None:
        texts.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(texts)
