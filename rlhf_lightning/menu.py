"""The menu on the terminal: `--help` and `rlhf-lightning components`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, Component, components, section_names, settings_of
from rlhf_lightning.schema import REQUIRED, did_you_mean
from rlhf_lightning.schema import settings_of as settings_of_target

EXAMPLES = """\
python train.py                                                   the whole loop on the embedded example
python train.py reward_head=mlp reward_head.hidden=64 advantage=gae advantage.lam=0.9
python train.py stage=reward 'feedback_format=[pairwise]' feedback_source=jsonl feedback_source.jsonl.path=pairs.jsonl
python train.py stage=ppo backbone=causal backbone.path=MODEL task=files task.prompts=P.jsonl rollout_scorer=lexicon rollout_scorer.path=L
python train.py -m advantage=gae,rloo seed=1,2                    a sweep"""


def print_help(presets: Mapping[str, Iterable[str]]) -> None:
    """What the program does, its groups with their options, and examples: one screen."""
    print("From what people say about texts to a better language model: feedback -> reward model -> PPO -> evaluation, in rounds.\n")
    print("Choose components (group=option, group.setting=value); [..] groups take several, in order:")
    for group, about in GROUPS.items():
        options = ", ".join(c.name for c in components(group))
        print(f"  {group:<20} {f'[{options}]' if about.many else options:<62} {about.summary}")
    print("\nSections of settings (section.setting=value):")
    for name in section_names():
        print(f"  {name:<20} {', '.join(settings_of(name))}")
    print("\nPresets:")
    for group, names in presets.items():
        print(f"  {group:<20} {', '.join(names)}")
    print("\nExamples:")
    print("\n".join(f"  {line}" for line in EXAMPLES.splitlines()))
    print("\n`rlhf-lightning components GROUP` shows settings, types and defaults; `--cfg job` the composed configuration.")


def print_components(group: str | None) -> None:
    """Every registered component, or one group's, with its summary, settings, types, defaults and owner.

    Raises:
        ConfigError: no such group.
    """
    if group is not None and group not in GROUPS:
        raise ConfigError(f"no group {group!r}{did_you_mean(group, GROUPS)}; there are: {', '.join(GROUPS)}")
    table = Table("option", "what it does", "settings", "owner", title=GROUPS[group].summary if group else None)
    for component in components(group):
        table.add_row(f"{component.group}={component.name}", component.summary, _settings(component), _owner(component))
    Console().print(table)


def _settings(component: Component) -> str:
    return "\n".join(
        f"{s.name}: {getattr(s.type, '__name__', s.type)} = {'required' if s.default is REQUIRED else s.default}"
        for s in settings_of_target(component.target)
    )


def _owner(component: Component) -> str:
    top = component.target.__module__.split(".")[0]
    return "built in" if top == "rlhf_lightning" else component.target.__module__
