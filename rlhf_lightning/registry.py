"""The registry: a file with `@register(group, name)` is an option on the command line.

A component's positional parameters exist at run time (tensors, records, sizes). Its keyword-only parameters are its configuration:
`register` turns them into a typed dataclass in Hydra's ConfigStore, and `reward_head=mlp reward_head.hidden=64` works with completion,
help and type checks, without YAML. runtime/composition.py validates choices, ranges and combinations before heavy imports, and `build`
makes the component from its validated node.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from hydra.core.config_store import ConfigStore
from pydantic import Field, FiniteFloat

from rlhf_lightning.config import plugins, presets, schema
from rlhf_lightning.config.guards import guard
from rlhf_lightning.config.schema import Setting, config_class, did_you_mean, validate
from rlhf_lightning.errors import ConfigError, RegistryError

T = TypeVar("T")
PACKAGE = Path(__file__).parent
OPTION_NAME = re.compile(r"(?!(?i:on|off|yes|no|true|false|null|y|n)$)[A-Za-z_][\w-]*")
"""Names that a command and YAML read as text: YAML's `off` is false."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A choice of options; with `many` several, in order (`feedback_filter=[empty,duplicates]`).

    `settings` belong to every option beside its own; a stage reads them, and the option isn't called with them.
    """

    summary: str
    many: bool = False
    settings: tuple[Setting, ...] = ()


WEIGHT = Setting("weight", FiniteFloat, 1.0, "factor of the score in the sum of several scorers.")
SHARE = Setting(
    "share",
    Annotated[float, Field(gt=0, le=1)] | None,
    None,
    "fraction of the prompts that it judges; null: an equal part of the rest.",
)
SHARE_RANDOM = Setting(
    "share_random", Annotated[float, Field(ge=0, le=1)], 0.2, "fraction of the questions drawn uniformly, the part that measures the model."
)
# A group's name is its folder under rlhf_lightning/ with "_" for "/": reward_head lives in rlhf_lightning/reward/head/.
GROUPS: dict[str, Group] = {
    "stage": Group("what to run"),
    "task": Group("what the policy is asked: prompts, demonstrations, and a hidden utility where one is known"),
    "backbone": Group("the language model that is trained"),
    "optimizer": Group("how gradients change the weights, in every training"),
    "schedule": Group("how the learning rate moves over a training"),
    "callback": Group("callbacks of Lightning's Trainer, in every training", many=True),
    "feedback_source": Group("where feedback rows come from", many=True),
    "feedback_format": Group("what a feedback row says", many=True),
    "feedback_filter": Group("how feedback is cleaned, in this order", many=True),
    "feedback_comment": Group("how good a written comment finds what it is about"),
    "feedback_annotator": Group("who judges the policy's samples in stage=rounds", many=True, settings=(SHARE,)),
    "feedback_selection": Group("which of the policy's samples people are asked to judge", settings=(SHARE_RANDOM,)),
    "reward_pooling": Group("from token vectors to one vector phi(x, y)"),
    "reward_head": Group("from phi(x, y) to the score r"),
    "reward_tuning": Group("which weights of the trunk are trained"),
    "reward_feature": Group("what the features head sees of a text: r = w·phi(x, y)", many=True),
    "reward_loss": Group("what the reward model learns from each kind of judgement", many=True),
    "collect_question": Group("what people are asked about an item, in this order", many=True),
    "preference_loss": Group("what the policy learns from preferences, without rollouts"),
    "rollout_sampler": Group("how responses are drawn from the policy"),
    "rollout_scorer": Group("what scores a response; of several the weighted sum", many=True, settings=(WEIGHT,)),
    "rollout_shaping": Group("from one score per response to a reward per token, in this order", many=True),
    "advantage": Group("how advantages are estimated"),
    "policy_tuning": Group("which weights of the policy are trained"),
    "policy_critic": Group("where the critic's values come from, for an advantage that needs them"),
    "policy_loss": Group("the policy's objective per token"),
    "policy_correction": Group("how tokens count where sampler and trainer disagree"),
    "policy_kl": Group("where the KL penalty to the reference counts"),
    "policy_reduction": Group("how per-token losses are averaged"),
    "policy_value_loss": Group("the critic's objective per token"),
    "policy_kl_control": Group("how the KL coefficient moves"),
    "sandbox": Group("where untrusted programs run, for rollout_scorer=code"),
    "evaluation_metric": Group("what is measured on held-out prompts", many=True),
}


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered option: its class or function, settings, needs and check."""

    group: str
    name: str
    target: Callable[..., Any]
    config: type
    needs: frozenset[str]
    check: Callable[[Any], None] | None = None

    @functools.cached_property
    def path(self) -> str:
        return f"{self.target.__module__}.{self.target.__qualname__}"

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.target) or "").strip().split("\n")[0]

    @property
    def file(self) -> str:
        return _file_of(self.target)


def _file_of(target: Callable[..., Any]) -> str:
    """The file of a component, from its module: the code of a decorated one is the decorator's."""
    return getattr(sys.modules.get(target.__module__), "__file__", None) or target.__module__


_components: dict[tuple[str, str], Component] = {}
_sections: dict[str, type] = {}


def register(group: str, name: str, *, needs: Iterable[str] = (), check: Callable[[Any], None] | None = None) -> Callable[[T], T]:
    """Make the decorated class or function the option `group=name`.

    Args:
        group: a key of GROUPS.
        name: the option's name, the file's name.
        needs: requirements on the run beyond the positional arguments ("values", "groups"), checked by the stage.
        check: called with the ComposedConfig before heavy imports if the component is used; raises ConfigError for settings that are
            valid one by one and not together. A stage's check runs with every command that chooses it.

    Raises:
        RegistryError: unknown group, a name that can't be typed or is used by other code, or a component that worker processes can't
            import.
    """
    if group not in GROUPS:
        raise RegistryError(f"no group {group!r}{did_you_mean(group, GROUPS)}; the groups are: {', '.join(GROUPS)}")
    if not OPTION_NAME.fullmatch(name):
        raise RegistryError(f"{group}={name} can't be typed on a command line: a name is of letters, digits and _, as in my_{group}")

    def decorate(target: Any) -> Any:
        module, qualname = target.__module__, target.__qualname__
        if module == "__main__" or "<locals>" in qualname:
            raise RegistryError(f"{group}={name}: {module}.{qualname} can't be imported by worker processes; move it into a module")
        _reject_duplicate(group, name, target)
        setattr(target, schema.GROUP_SETTINGS, GROUPS[group].settings)
        extra: dict[str, Any] = {"_target_": f"{module}.{qualname}"}
        config = config_class(target, extra if inspect.isclass(target) else extra | {"_partial_": True})
        config.__module__, config.__qualname__ = "rlhf_lightning.runtime.option_configs", f"{group}={name}"
        _components[group, name] = Component(group, name, target, config, frozenset(needs), check)
        package = f"{group}.{name}" if GROUPS[group].many else group
        ConfigStore.instance().store(group=group, name=name, node=config, package=package)
        return target

    return decorate


def section(name: str) -> Callable[[type[T]], type[T]]:
    """Make the decorated dataclass the section `name` of the configuration (`ppo.epochs=2`)."""

    def decorate(settings: type[T]) -> type[T]:
        _sections[name] = settings
        ConfigStore.instance().store(group="section", name=name, node=config_class(settings, {}))
        return settings

    return decorate


def build(node: Any, *args: Any) -> Any:
    """Make a component from its node: an instance of a class, or a function with its settings bound.

    Run-time arguments follow the node. Only a registered component is ever called.
    """
    component = component_of(node)
    settings = validate(component.target, node, component.group)
    for shared in GROUPS[component.group].settings:
        del settings[shared.name]
    is_class = inspect.isclass(component.target)
    built = component.target(*args, **settings) if is_class else functools.partial(component.target, *args, **settings)
    return guard(f"{component.group}={component.name}", component.target, component.group, built)


def load_components(plugin_folders: Sequence[Path] | None = None) -> list[str]:
    """Import all components: built-ins, plugin folders, entry points; add the presets of plugins.

    A plugin that fails to import is left out and named with its cause; the rest works.

    Args:
        plugin_folders: default: those of config/plugins.py.

    Returns:
        One line for each plugin that could not be loaded.
    """
    for group in GROUPS:
        for file in sorted(group_folder(group).glob("[a-z]*.py")):
            importlib.import_module(f"rlhf_lightning.{'.'.join(file.relative_to(PACKAGE).with_suffix('').parts)}")
    for file in sorted(PACKAGE.glob("*/settings.py")):
        importlib.import_module(f"rlhf_lightning.{file.parent.name}.settings")
    folders = plugins.plugin_folders() if plugin_folders is None else plugin_folders
    broken = []
    for complaint in plugins.load(folders):
        broken.append(complaint)
        plugins.unregister_failed(_components)
    for folder in plugins.preset_folders(folders):
        broken += presets.add(folder, _components)
    return broken


def components(group: str | None = None) -> list[Component]:
    """Every registered component, or those of one group, in the order of group and name."""
    members = [c for c in _components.values() if group in (None, c.group)]
    return sorted(members, key=lambda c: (list(GROUPS).index(c.group), c.name))


def option(group: str, name: str) -> Component:
    """The component `group=name`; loads all components if it is missing.

    Raises:
        ConfigError: no such group or option, with the nearest name, the list, and the plugins that can't be loaded.
    """
    if group not in GROUPS:
        raise ConfigError(f"no group {group!r}{did_you_mean(group, GROUPS)}; there are: {', '.join(GROUPS)}")
    broken = load_components() if (group, name) not in _components else []
    if (group, name) not in _components:
        names = [c.name for c in components(group)]
        hint = "; a plugin must be in plugins/ of the working folder, in --plugins FOLDER, or installed"
        raise ConfigError("\n".join([f"no option {group}={name}{did_you_mean(name, names)}; there are: {', '.join(names)}{hint}", *broken]))
    return _components[group, name]


def section_names() -> list[str]:
    """The names of all sections (`ppo`, `reward`, ...)."""
    return sorted(_sections)


def settings_of(name: str) -> list[str]:
    """The settings of a section."""
    return [setting.name for setting in schema.settings_of(section_class(name))]


def section_class(name: str) -> type:
    """The dataclass of a section."""
    return _sections[name]


def component_of(node: Mapping[str, Any]) -> Component:
    """The component of a composed node. Raises ConfigError for a `_target_` that isn't registered.

    Only registered components are ever called, whatever a configuration or a checkpoint contains.
    """
    path = node.get("_target_")
    for component in _components.values():
        if component.path == path:
            return component
    raise ConfigError(f"_target_ {path!r} is not a registered component: @register makes one, and --plugins FOLDER loads plugins")


def make(group: str, name: str, settings: Mapping[str, Any], *args: Any) -> Any:
    """Make a component from its name and settings. Raises ConfigError for an unknown option."""
    return build({**settings, "_target_": option(group, name).path}, *args)


def build_section(name: str, node: Any) -> Any:
    """The section's dataclass with validated values. Raises ConfigError for an invalid one."""
    return _sections[name](**validate(_sections[name], node, name))


def _reject_duplicate(group: str, name: str, target: Any) -> None:
    """Raise RegistryError for a used name, or for a component registered under a second name."""
    path, file = f"{target.__module__}.{target.__qualname__}", _file_of(target)
    registered = _components.get((group, name))
    if registered is not None and registered.path != path:
        module = registered.target.__module__
        if registered.file == file and module != target.__module__:
            both = f"{module} and as {target.__module__}"
            raise RegistryError(f"{file} is imported under two names, as {both}: `from {module} import ...` everywhere")
        raise RegistryError(f"{group}={name} is taken by {_owner(registered.target)}; {_owner(target)} must choose another name")
    for other in _components.values():
        if other.path == path and (other.group, other.name) != (group, name):
            raise RegistryError(f"{path} is {other.group}={other.name} already: {group}={name} needs a class or function of its own name")


def _owner(target: Any) -> str:
    """The file of a component, with its installed package."""
    package = plugins.packages().get(target.__module__.split(".")[0])
    return f"{_file_of(target)} ({package})" if package else _file_of(target)


def group_folder(group: str) -> Path:
    """The folder of a group: `reward_head` is rlhf_lightning/reward/head."""
    package, _, rest = group.partition("_")
    return PACKAGE / package / rest if rest else PACKAGE / package
