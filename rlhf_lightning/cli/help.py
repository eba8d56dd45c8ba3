"""The options and settings on the terminal: `--help` and `rlhf-lightning components`."""

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
FOOT = "rlhf-lightning components [GROUP or SECTION]: settings. new GROUP NAME: a new plugin. --plugins FOLDER. --cfg job."


def print_help() -> None:
    """Print the purpose of the program, its groups with their options, and examples: one screen."""
    print(_with_program_name(HEAD))
    defaults, presets = default_options(), list_presets()
    for group, declared in GROUPS.items():
        options = sorted([*(c.name for c in components(group)), *presets.pop(group, ())])
        print(visible(_group_line(group, options, defaults.get(group, ()), declared.summary, declared.many)))
    for group, names in presets.items():
        print(visible(_group_line(group, list(names), defaults.get(group, ()), PRESETS.get(group, ""))))
    print("Settings:", *(f"{name}.*" for name in section_names()), "trainer.*", "logger.*", "seed")
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


def print_components(name: str | None) -> None:
    """Print the components, all or of one group, or the settings of one section.

    Raises:
        ConfigError: no such group or section.
    """
    # A section, or a name that is neither section nor group.
    if name in section_names():
        print_section(str(name))
        return
    if name is not None and name not in GROUPS:
        names = [*GROUPS, *section_names()]
        raise ConfigError(f"no group {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}")
    # A row for each component.
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=GROUPS[name].summary if name else None, show_lines=True)
    table.add_column("option", no_wrap=True)
    for head in ("summary", "settings", "owner"):
        table.add_column(head, overflow="fold")
    for component in components(name):
        cells = (
            f"{component.group}={component.name}",
            component.summary,
            _format_settings(settings_of(component.target)),
            owner(component),
        )
        table.add_row(*(literal(cell, console) for cell in cells))
    console.print(table)


def print_section(name: str) -> None:
    """The settings of a section, with types and defaults."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=literal((section_class(name).__doc__ or name).split("\n")[0], console))
    table.add_column("setting", no_wrap=True)
    for head in ("type", "default"):
        table.add_column(head, overflow="fold")
    for setting in settings_of(section_class(name)):
        cells = (f"{name}.{setting.name}", type_name(setting.type), default_text(setting))
        table.add_row(*(literal(cell, console) for cell in cells))
    console.print(table)


def _format_settings(settings: Sequence[Setting]) -> str:
    return "\n".join(f"{setting.name}={default_text(setting)}  ({type_name(setting.type)})" for setting in settings)


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
