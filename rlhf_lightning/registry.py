"""The registry: a component is one file that says `@register(group, name)` and is then an option on the command line.

A component's positional parameters are what exists at run time (tensors, records, sizes). Its keyword-only parameters are its
configuration: `register` turns them into a typed dataclass in Hydra's ConfigStore, so that `reward_head=mlp reward_head.hidden=64`
works with completion, help and type checks, and no YAML is written. `check` holds the composed values to what types can't say
(choices, ranges) before anything heavy loads, and `build` makes the component from its checked node.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import ConfigError, RegistryError

T = TypeVar("T")
PACKAGE = Path(__file__).parent
ENTRY_POINTS = "rlhf_lightning.plugins"


@dataclasses.dataclass(frozen=True)
class Group:
    """One choice on the menu. `many`: several options may be chosen at a time, in order (`feedback_filter=[empty,duplicates]`)."""

    summary: str
    many: bool = False


# A group's name is its folder under rlhf_lightning/ with "_" for "/": reward_head lives in rlhf_lightning/reward/head/.
GROUPS: dict[str, Group] = {
    "stage": Group("what to run"),
    "task": Group("what the policy is asked: prompts, demonstrations, and a hidden utility where one is known"),
    "backbone": Group("the language model that is trained"),
    "feedback_source": Group("where feedback rows come from"),
    "feedback_format": Group("what a feedback row says", many=True),
    "feedback_filter": Group("how feedback is cleaned, in this order", many=True),
    "feedback_annotator": Group("who judges the policy's samples in stage=rounds"),
    "reward_pooling": Group("from token vectors to one vector phi(x, y)"),
    "reward_head": Group("from phi(x, y) to the score r"),
    "reward_loss": Group("what the reward model learns from each kind of judgement", many=True),
    "rollout_sampler": Group("how responses are drawn from the policy"),
    "rollout_scorer": Group("what scores a response"),
    "rollout_shaping": Group("from one score per response to a reward per token, in this order", many=True),
    "advantage": Group("how advantages are estimated"),
    "policy_loss": Group("the policy's objective per token"),
    "policy_reduction": Group("how per-token losses are averaged"),
    "policy_value_loss": Group("the critic's objective per token"),
    "policy_kl_control": Group("how the KL coefficient moves"),
    "evaluation_metric": Group("what is measured on held-out prompts", many=True),
}


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered option: where it is, what it is called, which settings it takes and what it needs from the run."""

    group: str
    name: str
    target: Callable[..., Any]
    config: type
    needs: frozenset[str]

    @property
    def path(self) -> str:
        return f"{self.target.__module__}.{self.target.__qualname__}"

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.target) or "").strip().split("\n")[0]

    @property
    def file(self) -> str:
        return inspect.getsourcefile(self.target) or self.target.__module__


_components: dict[tuple[str, str], Component] = {}
_sections: dict[str, type] = {}


def components(group: str | None = None) -> list[Component]:
    """Every registered component, or those of one group, in the order of group and name."""
    chosen = [c for c in _components.values() if group in (None, c.group)]
    return sorted(chosen, key=lambda c: (list(GROUPS).index(c.group), c.name))


def component_of(node: Mapping[str, Any]) -> Component:
    """The component that a composed node stands for. Raises ConfigError where its `_target_` isn't registered: only registered
    components are ever called, whatever a configuration or a checkpoint says."""
    path = node.get("_target_")
    for component in _components.values():
        if component.path == path:
            return component
    raise ConfigError(f"_target_ {path!r} is not a registered component; register it in plugins/ with @register(group, name)")


def register(group: str, name: str, *, needs: Iterable[str] = ()) -> Callable[[T], T]:
    """Make the decorated class or function the option `group=name`.

    Args:
        group: a key of GROUPS.
        name: the option's name, the file's name.
        needs: what the run must provide beyond the positional arguments ("values", "groups"); the stage refuses what it can't.

    Raises:
        RegistryError: unknown group, a name taken by other code, or a component that worker processes couldn't import.
    """
    if group not in GROUPS:
        raise RegistryError(f"no group {group!r}{did_you_mean(group, GROUPS)}; the groups are: {', '.join(GROUPS)}")

    def decorate(target: T) -> T:
        assert callable(target)
        module, qualname = target.__module__, target.__qualname__
        if module == "__main__" or "<locals>" in qualname:
            raise RegistryError(f"{group}={name}: {module}.{qualname} can't be imported by worker processes; move it into a module")
        known = _components.get((group, name))
        if known is not None and known.path != f"{module}.{qualname}":
            raise RegistryError(f"{group}={name} is taken by {known.file}; {inspect.getsourcefile(target)} must choose another name")
        fields = _keyword_fields(target)
        head: list[tuple[str, Any, Any]] = [("_target_", str, f"{module}.{qualname}")]
        if not inspect.isclass(target):
            head.append(("_partial_", bool, True))
        config = dataclasses.make_dataclass("Config", head + [(n, _hydra_type(t), _hydra_default(d)) for n, t, d in fields])
        # make_dataclass claims module "types"; pickle in sweep workers needs the true address.
        config.__module__, config.__qualname__ = module, f"{qualname}.Config"
        setattr(target, "Config", config)
        _components[group, name] = Component(group, name, target, config, frozenset(needs))
        package = f"{group}.{name}" if GROUPS[group].many else group
        ConfigStore.instance().store(group=group, name=name, node=config, package=package)
        return target

    return decorate


def section(name: str) -> Callable[[type[T]], type[T]]:
    """Make the decorated dataclass the typed section `name` of the configuration (`ppo.learning_rate=1e-5`)."""

    def decorate(settings: type[T]) -> type[T]:
        hints = typing.get_type_hints(settings, include_extras=True)
        fields = [(f.name, _hydra_type(hints[f.name]), _copied_default(f)) for f in dataclasses.fields(settings)]  # type: ignore[arg-type]
        node = dataclasses.make_dataclass("Config", fields)
        node.__module__, node.__qualname__ = settings.__module__, f"{settings.__qualname__}.Config"
        setattr(settings, "Config", node)
        _sections[name] = settings
        ConfigStore.instance().store(group="section", name=name, node=node, package=name)
        return settings

    return decorate


def build(node: Any, *args: Any) -> Any:
    """Make a component from its node: an instance of a class, or a function with its settings bound.

    Positional arguments that only exist at run time follow the node. Nothing but a registered component is ever called.
    """
    component = component_of(node)
    settings = _validated(component.target, component.config, node, f"{component.group}={component.name}")
    if inspect.isclass(component.target):
        return component.target(*args, **settings)
    import functools

    return functools.partial(component.target, *args, **settings)


def build_section(name: str, node: Any) -> Any:
    """The section's dataclass with its checked values. Raises ConfigError for a value outside its range or choices."""
    return _sections[name](**_validated(_sections[name], None, node, name))


def check(config: DictConfig) -> None:
    """Hold every section and component of a composed configuration to its declared types, choices and ranges.

    Raises:
        ConfigError: naming the key, what is allowed, and the nearest right name.
    """
    known = {*GROUPS, *_sections, "seed", "trainer", "logger", "experiment", "run_name"}
    for key in config:
        if key not in known:
            raise ConfigError(f"no setting {key!r} at the top of the configuration{did_you_mean(str(key), known)}")
    for name in _sections:
        if name in config:
            build_section(name, config[name])
    for group, about in GROUPS.items():
        node = config.get(group)
        if not node:
            continue
        for option in node.values() if about.many else [node]:
            component = component_of(option)
            if component.group != group:
                raise ConfigError(f"{group} can't be {component.path}: that is an option of {component.group}")
            key = f"{group}.{component.name}" if about.many else group
            _validated(component.target, component.config, option, key)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """', did you mean X?' where a name is near, else ''."""
    near = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def load_components(plugin_folders: Sequence[Path] | None = None) -> list[str]:
    """Import every component: built-ins, then plugins/*.py, then installed entry points, so that each is an option.

    A plugin that fails to import is left out and named with its cause; the rest works.

    Args:
        plugin_folders: folders named `plugins` to read; default: the one of the working folder and the one beside the package.

    Returns:
        One line for each plugin that could not be loaded.
    """
    for group in GROUPS:
        for file in sorted(group_folder(group).glob("[a-z]*.py")):
            importlib.import_module(f"rlhf_lightning.{'.'.join(file.relative_to(PACKAGE).with_suffix('').parts)}")
    for file in sorted(PACKAGE.glob("*/settings.py")):
        importlib.import_module(f"rlhf_lightning.{file.parent.name}.settings")
    broken = []
    folders = plugin_folders if plugin_folders is not None else [Path.cwd() / "plugins", PACKAGE.parent / "plugins"]
    for file in {f.name: f for folder in reversed(folders) for f in sorted(folder.glob("[a-z]*.py"))}.values():
        broken += _load_plugin(f"plugins.{file.stem}", file)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as cause:
            broken.append(f"plugin package {entry.value} is left out: {type(cause).__name__}: {cause}")
    return broken


def group_folder(group: str) -> Path:
    """The folder of a group: rlhf_lightning/<room>/<rest>, a room being the first word."""
    room, _, rest = group.partition("_")
    return PACKAGE / room / rest if rest else PACKAGE / room


def _load_plugin(module: str, file: Path) -> list[str]:
    if module in sys.modules:
        return []
    if "plugins" not in sys.modules:
        sys.modules["plugins"] = types.ModuleType("plugins")
        sys.modules["plugins"].__path__ = []
    paths = sys.modules["plugins"].__path__
    if str(file.parent) not in paths:
        paths.append(str(file.parent))
    # Workers of a sweep import `plugins.<name>` in a fresh process: they find it by the path.
    roots = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(file.parent.parent) not in roots:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(file.parent.parent), *filter(None, roots)])
    try:
        importlib.import_module(module)
    except Exception as cause:
        return [f"plugin {file} is left out: {type(cause).__name__}: {cause}"]
    return []


def _keyword_fields(target: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """(name, annotation, default) of the keyword-only parameters: the component's configuration."""
    function: Any = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise RegistryError(f"{target.__module__}.{target.__qualname__}: setting {parameter.name!r} needs a type")
            found.append((parameter.name, hints[parameter.name], parameter.default))
    return found


def _hydra_type(annotation: Any) -> Any:
    """The nearest type OmegaConf knows; `check` holds the exact one."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _hydra_type(arguments[0])
    if origin is typing.Literal:
        kinds = {type(a) for a in arguments}
        return kinds.pop() if len(kinds) == 1 else Any
    if origin in (typing.Union, types.UnionType):
        rest = [_hydra_type(a) for a in arguments if a is not type(None)]
        return (rest[0] | None) if len(rest) == 1 and len(arguments) == 2 else Any
    if origin in (list, tuple):
        return list[_hydra_type(arguments[0]) if arguments else Any]  # type: ignore[misc]
    if origin is dict:
        return dict[str, Any]
    return annotation if annotation in (int, float, str, bool) else Any


def _hydra_default(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return dataclasses.field(default="???")
    if isinstance(default, (list, tuple, dict)):
        plain = dict(default) if isinstance(default, dict) else list(default)
        return dataclasses.field(default_factory=lambda: plain.copy())
    return dataclasses.field(default=default)


def _copied_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return _hydra_default(field.default_factory())
    return _hydra_default(inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default)


def _validated(target: Any, config: type | None, node: Any, key: str) -> dict[str, Any]:
    """The node's settings held to the target's annotations."""
    values = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    assert isinstance(values, dict)
    values = {str(k): v for k, v in values.items() if k not in ("_target_", "_partial_")}
    if config is not None:
        fields = {name: (hint, ... if default is inspect.Parameter.empty else default) for name, hint, default in _keyword_fields(target)}
    else:
        hints = typing.get_type_hints(target, include_extras=True)
        fields = {f.name: (hints[f.name], f.default) for f in dataclasses.fields(target)}
    missing = [name for name in fields if values.get(name) == "???"]
    if missing:
        raise ConfigError(f"{key}.{missing[0]} must be given: add `{key.split('=')[0]}.{missing[0]}=...` to the command")
    for name in values:
        if name not in fields:
            raise ConfigError(f"{key} has no setting {name!r}{did_you_mean(name, fields)}; it has: {', '.join(fields) or 'none'}")
    model = pydantic.create_model("settings", **fields)  # type: ignore[call-overload]
    try:
        checked = model(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join([key.split("=")[0], *map(str, first["loc"])])
        raise ConfigError(f"{place}={first['input']!r}: {first['msg']}") from None
    return {name: getattr(checked, name) for name in fields}
