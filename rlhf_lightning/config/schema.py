"""Make typed configuration nodes from signatures, and validate composed nodes."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from rlhf_lightning.config.model_files import check_model_folder
from rlhf_lightning.errors import ConfigError, DataError, RegistryError


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: its name, its exact type and its default; `REQUIRED` without one.

    `description` is given for settings of a group; that of others is in a docstring (config/schema.py).
    """

    name: str
    type: Any
    default: Any
    description: str = ""


REQUIRED = inspect.Parameter.empty
GROUP_SETTINGS = "_group_settings"
"""Attribute of a component with the settings that every option of its group has."""


@functools.cache
def settings_of(target: Callable[..., Any]) -> tuple[Setting, ...]:
    """The settings of a component, its keyword-only parameters, or the fields of a section's dataclass.

    Raises:
        RegistryError: a setting without a type.
    """
    if dataclasses.is_dataclass(target) and "__dataclass_fields__" in vars(target):  # not of a base: it may have its own constructor
        hints = typing.get_type_hints(target, include_extras=True)
        return tuple(
            Setting(f.name, hints[f.name], REQUIRED if f.default is dataclasses.MISSING else f.default) for f in dataclasses.fields(target)
        )
    function: Any = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)
    settings = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise RegistryError(f"{target.__module__}.{target.__qualname__}: setting {parameter.name!r} needs a type")
            settings.append(Setting(parameter.name, hints[parameter.name], parameter.default))
    return (*settings, *vars(target).get(GROUP_SETTINGS, ()))


def config_class(target: Any, extra: Mapping[str, Any]) -> type:
    """Make a dataclass for Hydra's ConfigStore from the target's settings, importable as `target.Config`.

    A setting called `seed` follows the run's seed unless it is set.

    Args:
        extra: fields with values that come first (`_target_`, `_partial_`).
    """
    fields: list[tuple[str, Any, Any]] = [(name, type(value), dataclasses.field(default=value)) for name, value in extra.items()]
    for setting in settings_of(target):
        default = "${seed}" if setting.name == "seed" else setting.default
        fields.append((setting.name, _hydra_type(setting.type), _hydra_default(default)))
    config = dataclasses.make_dataclass("Config", fields)
    # make_dataclass claims module "types"; pickle in sweep workers needs the true address.
    config.__module__, config.__qualname__ = target.__module__, f"{target.__qualname__}.Config"
    setattr(target, "Config", config)
    return config


def validate(target: Callable[..., Any], node: Any, key: str) -> dict[str, Any]:
    """Validate a node's settings against the target's types, choices and ranges, and return their values.

    Args:
        key: of the node in the configuration, for messages.

    Raises:
        ConfigError: an unknown or missing setting, or a value that isn't allowed.
    """
    # Resolve the node.
    try:
        content: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except InterpolationResolutionError as error:
        raise ConfigError(f"{key} refers to something that doesn't exist: {str(error).splitlines()[0]}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{key}={content}: {key} takes settings; write {key}.<setting>=<value>")
    path = f"{target.__module__}.{target.__qualname__}"
    address = ("_target_", "_partial_") if content.get("_target_") == path else ()
    values = {str(name): value for name, value in content.items() if name not in address}
    # Reject unknown and missing settings.
    settings = {setting.name: setting for setting in settings_of(target)}
    for name in values:
        if name not in settings:
            raise ConfigError(f"{key} has no setting {name!r}{did_you_mean(name, settings)}; it has: {', '.join(settings) or 'none'}")
    for name, setting in settings.items():
        if values.get(name, setting.default) in ("???", REQUIRED):
            raise ConfigError(f"{key}.{name} must be given: add `{key}.{name}=...` to the command")
    # Check types and ranges with pydantic.
    try:
        checked = _pydantic_model(target)(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        location = ".".join([key, *map(str, first["loc"])])
        near = did_you_mean(str(first["input"]), re.findall("'([^']+)'", first["msg"])) if first["type"] == "literal_error" else ""
        raise ConfigError(f"{location}={first['input']}: {first['msg'].removeprefix('Value error, ')}{near}") from None
    return {name: getattr(checked, name) for name in settings}


@functools.cache
def _pydantic_model(target: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The target's settings as a pydantic model."""
    fields: dict[str, Any] = {s.name: (s.type, ... if s.default is REQUIRED else s.default) for s in settings_of(target)}
    return pydantic.create_model("settings", __config__=pydantic.ConfigDict(allow_inf_nan=False), **fields)


def path_settings(target: Callable[..., Any], node: Any) -> dict[str, list[str]]:
    """The paths in a node by setting: those whose type is a path or a list of paths, without references."""
    paths = {}
    for name in _path_names(target):
        if not isinstance(node, Mapping) or name not in node:
            continue
        if OmegaConf.is_config(node) and (OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name)):
            continue
        value = node[name]
        paths[name] = [item for item in (value if isinstance(value, list | ListConfig) else [value]) if isinstance(item, str)]
    return paths


@functools.cache
def _path_names(target: Callable[..., Any]) -> tuple[str, ...]:
    """The settings whose type is a path or a list of paths."""
    return tuple(setting.name for setting in settings_of(target) if _is_path(setting.type))


def expand_paths(target: Callable[..., Any], node: Any) -> None:
    """Expand `~` in place in the settings of a composed node whose type is a path."""
    for name, paths in path_settings(target, node).items():
        if any(path.startswith("~") for path in paths):
            node[name] = list(map(expand_user, paths)) if OmegaConf.is_list(node[name]) else expand_user(paths[0])


def _is_path(annotation: Any) -> bool:
    """Return whether a type is a path, a path or null, or a list of paths."""
    if typing.get_origin(annotation) is typing.Annotated:
        functions = [getattr(piece, "func", None) for piece in annotation.__metadata__]
        return expand_user in functions or local_or_hub in functions
    return any(_is_path(argument) for argument in typing.get_args(annotation))


def in_order(limits: tuple[float, float]) -> tuple[float, float]:
    """Require [lowest, highest] with the first below the second; for pydantic's AfterValidator."""
    if not limits[0] < limits[1]:
        raise ValueError("must be [lowest, highest], the first below the second")
    return limits


def expand_user(path: str) -> str:
    """Expand `~` or `~name` at the start of a path."""
    return os.path.expanduser(path)


def unescape(text: str) -> str:
    r"""Replace \n and \t by a line break and a tab: quotes on a command line keep the two characters."""
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match[1]], text)


def local_or_hub(path: str) -> str:
    """Check a ModelPath and expand its `~`.

    A path that can't be a Hub name (`/...`, `./...`, `~...`, `a/b/c`) must be a model's folder.
    """
    path = expand_user(path)
    if os.path.exists(path):
        try:
            check_model_folder(Path(path))
        except DataError as fault:
            raise ValueError(str(fault)) from fault
    elif path.startswith(("/", ".", "~")) or path.count("/") > 1:
        raise ValueError("no such folder; give a local Hugging Face folder or a Hub name")
    return path


FilePath = Annotated[str, pydantic.AfterValidator(expand_user)]
"""The type of a setting that names a file or folder, `~` included."""
ModelPath = Annotated[str, pydantic.AfterValidator(local_or_hub)]
"""The type of a setting that names a model: a missing folder is rejected before anything loads."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The text ", did you mean X?" for a similar name; "" without one."""
    near = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _hydra_type(annotation: Any) -> Any:
    """The nearest type that OmegaConf supports; `validate` checks the exact one."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _hydra_type(arguments[0])
    if origin is typing.Literal:
        kinds = {type(a) for a in arguments}
        return kinds.pop() if len(kinds) == 1 else Any
    if origin in (typing.Union, types.UnionType):
        rest = [_hydra_type(a) for a in arguments if a is not type(None)]
        # Hydra can't set a typed mapping that is None.
        return (rest[0] | None) if len(rest) == 1 and len(arguments) == 2 and typing.get_origin(rest[0]) is not dict else Any
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


_ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8,}.*)*)", re.MULTILINE)


@functools.cache
def descriptions_of(target: Callable[..., Any]) -> Mapping[str, str]:
    """The description of each setting of a component or section, "" without one.

    A docstring's entry under Args or Attributes is `name: text`, or `name, name: text` for several. A class inherits the entries of its
    bases.
    """
    entries: dict[str, str] = {}
    for owner in reversed(inspect.getmro(target) if inspect.isclass(target) else [target]):
        for match in _ENTRY.finditer(inspect.cleandoc(owner.__doc__ or "")):
            entries |= dict.fromkeys(match["names"].split(", "), " ".join(match["text"].split()))
    return {setting.name: entries.get(setting.name, setting.description) for setting in settings_of(target)}
