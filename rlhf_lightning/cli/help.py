"""The menu on the terminal: `--help` and `rlhf-lightning components`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.cli.type_names import type_name, value_name
from rlhf_lightning.config.display import literal, visible
from rlhf_lightning.config.plugins import packages
from rlhf_lightning.config.presets import default_options, list_presets
from rlhf_lightning.config.schema import REQUIRED, Setting, did_you_mean, settings_of
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, PACKAGE, Component, components, section_class, section_names

WIDTH = 120
NAME_WIDTH = 21
HEAD = """\
From what people say about texts to a better language model: feedback -> reward model -> PPO -> evaluation, in rounds.
  python train.py [group=option] [group.setting=value] ...    [..]: a group that takes several, in order; *: the default"""
EXAMPLES = """\
python train.py                                          the whole loop on the embedded example
python train.py reward_head=mlp reward_head.hidden=64 advantage=gae advantage.lam=0.9 ppo.learning_rate=1e-4
python train.py stage=reward feedback_source=jsonl feedback_source.jsonl.path=P.jsonl 'feedback_format=[pairwise]'
python train.py stage=ppo task=files task.prompts=P.jsonl rollout_scorer=reward_model rollout_scorer.path=RM
python train.py -m advantage=gae,rloo seed=1,2           a sweep"""
PRESETS = {"trainer": "where it runs", "logger": "where metrics go", "experiment": "one file, one result", "hparams": "what a sweep tries"}
FOOT = "rlhf-lightning components [GROUP or SECTION]: settings. new GROUP NAME: a plugin begun. --plugins FOLDER. --cfg job."


def print_help() -> None:
    """What the program does, its groups with their options, and examples: one screen."""
    print(_called(HEAD))
    chosen, presets = default_options(), list_presets()
    for group, about in GROUPS.items():
        options = sorted([*(c.name for c in components(group)), *presets.pop(group, ())])
        print(visible(_group_line(group, options, chosen.get(group, ()), about.summary, about.many)))
    for group, more in presets.items():
        print(visible(_group_line(group, list(more), chosen.get(group, ()), PRESETS.get(group, ""))))
    print("Settings:", *(f"{name}.*" for name in section_names()), "trainer.*", "logger.*", "seed")
    print("Examples:\n" + textwrap.indent(_called(EXAMPLES), "  "))
    print(FOOT)


def _called(text: str) -> str:
    """With the name that the program was started by: the wheel brings no train.py."""
    program = Path(sys.argv[0])
    return text.replace("python train.py", "rlhf-lightning") if program.stem == "rlhf-lightning" or program.parent == PACKAGE else text


def _group_line(group: str, options: Sequence[str], chosen: Sequence[str], summary: str, many: bool = False) -> str:
    """A group with its options, and what it is for where the screen has room."""
    listed = ", ".join(option + "*" * (option in chosen) for option in options)
    lines = textwrap.wrap(f"[{listed}]" if many else listed, WIDTH - NAME_WIDTH - 4) or ["none yet"]
    if summary and len(lines) == 1 and NAME_WIDTH + 5 + len(lines[0]) + len(summary) <= WIDTH:
        lines[0] = f"{lines[0]:<{WIDTH - NAME_WIDTH - len(summary) - 5}}  {summary}"
    return textwrap.indent("\n".join(lines), " " * (NAME_WIDTH + 3)).replace(" " * (NAME_WIDTH + 3), f"  {group:<{NAME_WIDTH}} ", 1)


def print_components(name: str | None) -> None:
    """Every registered component with its summary, settings, types, defaults and owner; or those of one group, or one section's settings.

    Raises:
        ConfigError: no such group or section.
    """
    if name in section_names():
        print_section(str(name))
        return
    if name is not None and name not in GROUPS:
        names = [*GROUPS, *section_names()]
        raise ConfigError(f"no group {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}")
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("option", "what it does", "settings", "owner", title=GROUPS[name].summary if name else None, show_lines=True)
    for component in components(name):
        cells = (f"{component.group}={component.name}", component.summary, _listed(settings_of(component.target)), owner(component))
        table.add_row(*(literal(cell, console) for cell in cells))
    console.print(table)


def print_section(name: str) -> None:
    """The settings of a section, with types and defaults."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("setting", "type", "default", title=literal((section_class(name).__doc__ or name).split("\n")[0], console))
    for setting in settings_of(section_class(name)):
        cells = (f"{name}.{setting.name}", type_name(setting.type), shown_default(setting))
        table.add_row(*(literal(cell, console) for cell in cells))
    console.print(table)


def _listed(settings: Sequence[Setting]) -> str:
    return "\n".join(f"{setting.name}={shown_default(setting)}  ({type_name(setting.type)})" for setting in settings)


def shown_default(setting: Setting) -> str:
    """A setting's default as a command would say it."""
    if setting.name == "seed":
        return "${seed}"
    return "required" if setting.default is REQUIRED else value_name(setting.default)


def owner(component: Component) -> str:
    """Where a component comes from: built in, a file, or an installed package by its name and version."""
    top, file = component.target.__module__.split(".")[0], Path(component.file)
    if top == "rlhf_lightning":
        return "built in"
    here = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return packages().get(top, str(here))
