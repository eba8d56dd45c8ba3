"""mkdocs hook: the reference, one page for each group of the registry and one for each kind of settings, made when the docs are built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from mkdocs.structure.files import File, Files

from rlhf_lightning import errors, flow, registry
from rlhf_lightning.cli.help import SECTIONS, default_text, type_name
from rlhf_lightning.config.presets import default_options
from rlhf_lightning.config.schema import descriptions_of, settings_of
from rlhf_lightning.registry import GROUPS, Component
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.storage.folder import load_reward_model, push_reward_model, save_reward_model

FOLDER = "reference"
PYTHON: dict[str, tuple[Any, ...]] = {
    "The registry": (registry.register, registry.Group, registry.build),
    "The records of the flow": (flow.Prompts, flow.Rollout, flow.ScoredRollout, flow.Experience),
    "Reward models": (load_reward_model, save_reward_model, push_reward_model, RewardModel.score_texts),
    "Errors": (errors.UserError, errors.ConfigError, errors.DataError, errors.RegistryError),
}
"""The classes and functions that plugins use, and those that load a model."""


def on_config(config: Any) -> Any:
    """Add the pages to the navigation."""
    registry.load_components()
    names = ["index", *GROUPS, "settings", "python"]
    titles = {"index": "All options", "settings": "Sections, trainer, logger", "python": "In Python"}
    config.nav.append({"Reference": [{titles.get(name, name): f"{FOLDER}/{name}.md"} for name in names]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages themselves."""
    for name, text in pages().items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Every page of the reference by its name, in Markdown."""
    registry.load_components()
    return {
        "index": index_page(),
        **{group: group_page(group) for group in GROUPS},
        "settings": settings_page(),
        "python": python_page(),
    }


def built_in(group: str) -> list[Component]:
    return [c for c in registry.components(group) if c.target.__module__.startswith("rlhf_lightning.")]


def index_page() -> str:
    lines = ["# All options", "", "What a command can choose. `group=option` chooses one; a group marked [..] takes several, in order.", ""]
    lines += ["| group | what it is for | options |", "|---|---|---|"]
    for group, declared in GROUPS.items():
        options = ", ".join(f"[{c.name}]({group}.md#{c.name})" for c in built_in(group))
        lines.append(f"| [{group}]({group}.md){' [..]' if declared.many else ''} | {escaped(declared.summary)} | {options} |")
    return "\n".join(lines) + "\n"


def group_page(group: str) -> str:
    """A group's options with their settings, types, defaults, descriptions and docstrings."""
    declared, chosen = GROUPS[group], default_options().get(group, [])
    default = f"`{group}=[{','.join(chosen)}]`" if declared.many else f"`{group}={chosen[0]}`" if chosen else "none"
    lines = [f"# {group}", "", f"{escaped(declared.summary[0].upper() + declared.summary[1:])}. Default: {default}.", ""]
    if declared.many:
        lines += [f"Several at a time, in order; a setting names its option: `{group}.OPTION.SETTING=VALUE`.", ""]
    for component in built_in(group):
        prefix = f"{group}.{component.name}" if declared.many else group
        lines += [f"## {component.name}", "", escaped(component.summary), ""]
        if component.needs:
            lines += [f"Needs: {', '.join(sorted(component.needs))}.", ""]
        lines += settings_table(component.target, prefix) + docstring(component.target)
        lines += [f"`{component.target.__module__.replace('.', '/')}.py`", ""]
    return "\n".join(lines)


def settings_page() -> str:
    lines = ["# Sections, trainer, logger", "", "Settings that belong to no option of a group.", ""]
    sections: Mapping[str, Any] = {name: registry.section_class(name) for name in registry.section_names()}
    for name, target in {**sections, **SECTIONS}.items():
        lines += [f"## {name}", "", escaped((target.__doc__ or "").split("\n")[0]), "", *settings_table(target, name), *docstring(target)]
    return "\n".join(lines)


def python_page() -> str:
    lines = ["# In Python", "", "The classes and functions that plugins use, and those that load a trained reward model.", ""]
    for title, targets in PYTHON.items():
        lines += [f"## {title}", ""]
        for target in targets:
            lines += [
                f"### {target.__qualname__}",
                "",
                f"`{target.__module__}`",
                "",
                *signature(target),
                *docstring(target, summary=True),
            ]
    return "\n".join(lines)


def settings_table(target: Callable[..., Any], prefix: str) -> list[str]:
    settings = settings_of(target)
    if not settings:
        return ["No settings.", ""]
    descriptions = descriptions_of(target)
    rows = [
        f"| `{prefix}.{s.name}` | {escaped(type_name(s.type))} | `{default_text(s)}` | {escaped(descriptions[s.name])} |" for s in settings
    ]
    return ["| setting | type | default | description |", "|---|---|---|---|", *rows, ""]


def signature(target: Any) -> list[str]:
    if inspect.isclass(target) and issubclass(target, Exception):
        return []
    parameters = str(inspect.signature(target)).replace("'", "")  # annotations are stored as text
    return ["```text", f"{target.__qualname__}{parameters}", "```", ""]


def docstring(target: Any, summary: bool = False) -> list[str]:
    """A docstring without its first line, literally."""
    text = inspect.getdoc(target) or ""
    rest = text if summary else text.partition("\n")[2].strip("\n")
    return ["```text", rest, "```", ""] if rest else []


def escaped(text: str) -> str:
    """Plain text inside Markdown and its tables; code in backticks stays code."""
    pieces = re.split(r"(`[^`|]*`)", text)
    return "".join(piece if i % 2 else re.sub(r"([\\`*_\[\]<>|])", r"\\\1", piece) for i, piece in enumerate(pieces))
