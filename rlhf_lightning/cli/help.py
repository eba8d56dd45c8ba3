"""The options and settings on the terminal: `--help` and `rlhf-lightning components`."""

from __future__ import annotations

import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from rlhf_lightning.config.display import literal, visible
from rlhf_lightning.config.plugins import packages
from rlhf_lightning.config.presets import default_options, list_presets
from rlhf_lightning.config.schema import REQUIRED, Setting, descriptions_of, did_you_mean, expand_user, local_or_hub, settings_of
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, PACKAGE, Component, components, section_class, section_names
from rlhf_lightning.tracking.logger_settings import LOGGERS
from rlhf_lightning.training.trainer import TrainerSettings

PLAIN = {int: "int", float: "float", str: "text", bool: "true or false", type(None): "null", Any: "anything"}
BOUNDS = (
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "<="),
)


def type_name(annotation: Any) -> str:
    """`float > 0`, `one of k1, k2, k3`, `list of text`, `int > 0 or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _with_bounds(type_name(arguments[0]), arguments[1:])
    if origin is typing.Literal:
        return f"one of {', '.join(map(value_name, arguments))}" if len(arguments) > 1 else value_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_name, arguments)))
    if origin is dict:
        return f"{{name: {type_name(arguments[1])}}}"
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(map(type_name, arguments))}]"
    if origin in (list, tuple):
        return f"list of {_in_brackets(type_name(arguments[0]))}"
    return PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def value_name(value: Any) -> str:
    """A value as it is written in a command."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {value_name(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_name, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value) if value == "" else str(value)


def _with_bounds(name: str, metadata: Iterable[Any]) -> str:
    """A type's name with the bounds of its values."""
    constraints = [piece for entry in metadata for piece in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    if any(isinstance(piece, AfterValidator) and piece.func is local_or_hub for piece in constraints):
        return "folder or Hub name"
    if any(isinstance(piece, AfterValidator) and piece.func is expand_user for piece in constraints):
        return "path"
    bounds = [f"{sign} {getattr(piece, key):g}" for piece in constraints for kind, key, sign in BOUNDS if isinstance(piece, kind)]
    lengths = {piece.min_length for piece in constraints if isinstance(piece, annotated_types.MinLen)}
    lengths |= {piece.max_length for piece in constraints if isinstance(piece, annotated_types.MaxLen)}
    texts = [" and ".join(bounds)] if bounds else []
    texts += [f"of length {' to '.join(map(str, sorted(lengths)))}"] if lengths else []
    texts += [piece.func.__name__.strip("_").replace("_", " ") for piece in constraints if isinstance(piece, AfterValidator)]
    return " ".join([name, *texts])


def _in_brackets(name: str) -> str:
    return f"({name})" if " or " in name or ", " in name else name


WIDTH = 120
NAME_WIDTH = 21
HEAD = """\
From what people say about texts to a better language model: feedback -> reward model -> PPO -> evaluation, in rounds.
  python train.py [group=option] [group.setting=value] ...    [..]: a group that takes several, in order; *: the default"""
EXAMPLES = """\
python train.py                                          the whole loop on the embedded example
python train.py reward_head=mlp reward_head.hidden=64 advantage=gae advantage.lam=0.9 ppo.learning_rate=1e-4
python train.py stage=reward feedback_source=jsonl feedback_source.jsonl.path=P.jsonl 'feedback_format=[pairwise]'
python train.py stage=ppo task=files task.prompts=P.jsonl rollout_scorer=lexicon rollout_scorer.lexicon.path=L.tsv
python train.py -m advantage=gae,rloo seed=1,2           a sweep"""
PRESETS = {
    "trainer": "where it runs",
    "logger": "where metrics go",
    "experiment": "one file, one result",
    "hparams": "what a sweep tries",
    "debug": "one step, one batch, a profile",
}
SECTIONS: Mapping[str, Any] = {"trainer": TrainerSettings, "logger": LOGGERS["wandb"]}
"""Sections that presets fill."""
FOOT = """\
rlhf-lightning components [GROUP|SECTION|WORDS]. new GROUP NAME: a new plugin. --plugins FOLDER. --check. --cfg job.
look FILE. chat FOLDER [FOLDER]. judge PROGRAMS. rounds FOLDER. export REWARD_MODEL TARGET | COLLECTION FORMAT FILE."""


def print_help() -> None:
    """Print the purpose of the program, its groups with their options, and examples: one screen."""
    print(_with_program_name(HEAD))
    defaults, presets = default_options(), list_presets()
    for group, declared in GROUPS.items():
        options = sorted([*(c.name for c in components(group)), *presets.pop(group, ())])
        print(visible(_group_line(group, options, defaults.get(group, ()), declared.summary, declared.many)))
    for group, names in presets.items():
        print(visible(_group_line(group, list(names), defaults.get(group, ()), PRESETS.get(group, ""))))
    settings = [*(f"{name}.*" for name in [*section_names(), *SECTIONS]), "seed", "push"]
    print(textwrap.fill(f"Settings: {' '.join(settings)}", WIDTH, subsequent_indent="  "))
    print("Examples:\n" + textwrap.indent(_with_program_name(EXAMPLES), "  "))
    print(FOOT)


def _with_program_name(text: str) -> str:
    """Replace `python train.py` by the command that started the program: the wheel has no train.py."""
    program = Path(sys.argv[0])
    return text.replace("python train.py", "rlhf-lightning") if program.stem == "rlhf-lightning" or program.parent == PACKAGE else text


def _group_line(group: str, options: Sequence[str], defaults: Sequence[str], summary: str, many: bool = False) -> str:
    """A line for a group: its options, and its summary if the line has space."""
    listed = ", ".join(option + "*" * (option in defaults) for option in options)
    lines = textwrap.wrap(f"[{listed}]" if many else listed, WIDTH - NAME_WIDTH - 4) or ["none yet"]
    if summary and len(lines) == 1 and NAME_WIDTH + 5 + len(lines[0]) + len(summary) <= WIDTH:
        lines[0] = f"{lines[0]:<{WIDTH - NAME_WIDTH - len(summary) - 5}}  {summary}"
    return textwrap.indent("\n".join(lines), " " * (NAME_WIDTH + 3)).replace(" " * (NAME_WIDTH + 3), f"  {group:<{NAME_WIDTH}} ", 1)


def print_components(query: str | None) -> None:
    """Print all components, those of a group, the settings of a section, or what a search finds.

    Args:
        query: None for all; the name of a group or section; else words to search in names, summaries and descriptions of settings.

    Raises:
        ConfigError: nothing matches.
    """
    if query in SECTIONS or query in section_names():
        print_section(str(query))
    elif query is None or query in GROUPS:
        _print_options(components(query), GROUPS[query].summary if query else None, with_descriptions=query is not None)
    else:
        print_matches(query)


def _print_options(options: Sequence[Component], title: str | None, with_descriptions: bool) -> None:
    rows = []
    for option in options:
        settings = _format_settings(option.target, with_descriptions)
        rows.append((f"{option.group}={option.name}", option.summary, settings, owner(option)))
    _print_table(title, ("option", "summary", "settings", "owner"), rows)


def print_section(name: str) -> None:
    """The settings of a section, with types, defaults and descriptions."""
    target = SECTIONS.get(name) or section_class(name)
    descriptions = descriptions_of(target)
    rows = [(f"{name}.{s.name}", type_name(s.type), default_text(s), descriptions[s.name]) for s in settings_of(target)]
    _print_table((target.__doc__ or name).split("\n")[0], ("setting", "type", "default", "description"), rows)


def print_matches(query: str) -> None:
    """Print the options and settings that match all words of a query, the best first.

    Raises:
        ConfigError: none does.
    """
    words = query.lower().split()
    matches = [(rank, key, text) for key, text in searchable() if (rank := _rank(key.lower(), text.lower(), words)) is not None]
    if not matches:
        names = [*GROUPS, *section_names(), *SECTIONS]
        raise ConfigError(f"no group, option or setting matches {query!r}{did_you_mean(query, names)}; the groups are: {', '.join(names)}")
    rows = [(key, text) for _, key, text in sorted(matches, key=lambda match: match[0])]
    _print_table(f"what matches {query!r}", ("option or setting", "description"), rows)


def searchable() -> Iterator[tuple[str, str]]:
    """Each group, option and setting as it is written in a command, with its description."""
    for group, declared in GROUPS.items():
        yield f"{group}=...", declared.summary
        for option in components(group):
            yield f"{group}={option.name}", option.summary
            prefix = f"{group}.{option.name}" if declared.many else group
            for name, text in descriptions_of(option.target).items():
                yield f"{prefix}.{name}" + (f" ({option.name})" if not declared.many else ""), text
    for section, target in {**{name: section_class(name) for name in section_names()}, **SECTIONS}.items():
        for name, text in descriptions_of(target).items():
            yield f"{section}.{name}", text


def _rank(key: str, text: str, words: Sequence[str]) -> int | None:
    """The order of a match: 0 in the last name, 1 in the address, 2 in the description; None without one."""
    name = re.split(r"[=.]", key.partition(" ")[0])[-1]
    texts = (name, key, f"{key} {text}")
    return next((i for i, content in enumerate(texts) if all(re.search(rf"(?<![^\W_]){re.escape(word)}", content) for word in words)), None)


def _print_table(title: str | None, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print literal cells; names in the first column stay in one line."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=title and literal(title, console), show_lines=True)
    table.add_column(heads[0], no_wrap=True)
    for head in heads[1:]:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(literal(cell, console) for cell in row))
    console.print(table)


def _format_settings(target: Callable[..., Any], with_descriptions: bool) -> str:
    descriptions = descriptions_of(target)
    lines = []
    for setting in settings_of(target):
        lines.append(f"{setting.name}={default_text(setting)}  ({type_name(setting.type)})")
        if with_descriptions and descriptions[setting.name]:
            lines.append(f"    {descriptions[setting.name]}")
    return "\n".join(lines)


def default_text(setting: Setting) -> str:
    """A setting's default as it is written in a command."""
    if setting.name == "seed":
        return "${seed}"
    return "required" if setting.default is REQUIRED else value_name(setting.default)


def owner(component: Component) -> str:
    """The origin of a component: built in, a file, or the name and version of an installed package."""
    top, file = component.target.__module__.split(".")[0], Path(component.file)
    if top == "rlhf_lightning":
        return "built in"
    path = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return packages().get(top, str(path))
