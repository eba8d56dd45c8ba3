"""Check that no configuration file runs code, before Hydra composes it or instantiates anything.

Hydra has no public hook before it instantiates callbacks, and none to replace its file source: hence the imports of hydra._internal,
pinned by `hydra-core<1.4`.
"""

from __future__ import annotations

import copy
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source, structured_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf_lightning.config.composition_cost import SweepCompositions, reduce_work
from rlhf_lightning.errors import ConfigError

CALLBACKS = (
    "rlhf_lightning.cli.folder_lock.FolderLock",
    "rlhf_lightning.cli.sweep.check.SweepCheck",
    "rlhf_lightning.cli.sweep.table.SweepTable",
)
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
"""The packages of launchers and sweepers; Hydra accepts no others."""
LOGGING = (
    "logging.StreamHandler", "logging.NullHandler", "logging.FileHandler", "logging.handlers.RotatingFileHandler", "logging.Formatter",
    "colorlog.ColoredFormatter",
)  # fmt: skip
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
LOG_FILE = re.compile(r"\$\{hydra\.(?:runtime\.output_dir|sweep\.dir|run\.dir)\}/(?!.*\.\.)[^/]+")
FOLDER = re.compile(r"file://|\.{0,2}/|~|\$\{oc\.env:\w+\}/|[\w.-]+(?:/|$)")
"""The beginning of a search path entry that is a folder, not a package."""
CALLS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_", "()")
"""Keys of a node that calls a function or class."""
VARIABLES = ("OMP_", "MKL_", "OPENBLAS_", "CUDA_VISIBLE_DEVICES", "NCCL_", "GLOO_", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "RAYON_")
"""Prefixes of environment variables that a file may set; others can load code, or send data elsewhere."""
MAX_BYTES = 4 << 20
MAX_NODES = 100_000
"""Of a YAML file with its aliases expanded."""
WHY = "a configuration file chooses components and sets values, and runs no code"


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of YAML files with size limits and without package search paths.

    Hydra's registry demands the name of the class that it replaces.
    """

    read: ClassVar[dict[tuple[str, str, str, int, int], ConfigResult]] = {}
    """What files gave, by provider, folder, path, time and size."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Raises ConfigError for a file that can't be read, expands beyond bounds, or searches packages."""
        path = os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))
        try:
            status = os.stat(path) if os.path.exists(path) else None
            key = (self.provider, self.path, path, status.st_mtime_ns, status.st_size) if status else None
            if key in self.read:
                return copy.deepcopy(self.read[key])
            if status:
                check_yaml(path)
            result = super().load_config(config_path)
        except (OSError, UnicodeError, RecursionError) as cause:
            raise ConfigError(f"{path} can't be read: {getattr(cause, 'strerror', None) or cause}") from cause
        check_search_path(result.config, path)
        if key:
            self.read[key] = copy.deepcopy(result)
        return result


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """Hydra's source of files in packages, of which its own are read once."""

    read: ClassVar[dict[str, ConfigResult]] = {}

    def load_config(self, config_path: str) -> ConfigResult:
        if self.path != "hydra.conf":
            return super().load_config(config_path)
        if config_path not in self.read:
            self.read[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.read[config_path])


class StructuredConfigSource(structured_config_source.StructuredConfigSource):
    """Hydra's source of registered options, shared.

    Hydra copies its sources with all options for every configuration that it composes, and changes none.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> StructuredConfigSource:
        return self

    def load_config(self, config_path: str) -> ConfigResult:
        node = self.store._load(self._normalize_file_name(config_path))
        if not isinstance(node.node, DictConfig) or node.node._metadata.object_type in (None, dict):
            return super().load_config(config_path)  # Hydra takes the defaults out of it
        return ConfigResult(
            config=node.node, path="structured://", provider=node.provider or self.provider, header={"package": node.package}
        )


def register() -> None:
    """Replace Hydra's sources by those above.

    Call it before Hydra discovers its plugins.
    """
    SourcesRegistry.instance().types |= {
        "file": FileConfigSource,
        "pkg": ImportlibResourcesConfigSource,
        "structured": StructuredConfigSource,
    }
    reduce_work()


def check_yaml(path: str) -> None:
    """Check that a YAML file is regular and of limited size, with its aliases expanded.

    Raises:
        ConfigError: it isn't.
        OSError: it can't be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        raise ConfigError(f"{path} is not a file of at most {MAX_BYTES >> 20} MiB")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if "&" in text and "*" in text:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _expanded_size(node, {}) > MAX_NODES:
            raise ConfigError(f"{path} has more than {MAX_NODES:,} values when its aliases are expanded, or an alias of itself")


def _expanded_size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Values of a node with its aliases expanded; infinite for one that holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")
        items = node.value if isinstance(node.value, list) else []
        children = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def check_search_path(config: Any, path: str) -> None:
    """Reject packages in a file's search path: Hydra would import them. Raises ConfigError."""
    content = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else {}
    hydra = content.get("hydra") if isinstance(content, dict) else None
    entries = hydra.get("searchpath") if isinstance(hydra, dict) else hydra
    for entry in entries if isinstance(entries, list) else [] if entries is None else [entries]:
        if not isinstance(entry, str) or not FOLDER.match(entry):
            raise ConfigError(f"{path}: hydra.searchpath takes folders from a file, not {entry!r}: {WHY}")


@contextmanager
def checked_composition() -> Iterator[None]:
    """Check every configuration that Hydra composes within the block, before it instantiates anything."""
    original = ConfigLoaderImpl.load_configuration
    compositions = SweepCompositions(original)

    def load(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        config = compositions(self, *args, **kwargs)
        check_hydra(config)
        return config

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = original  # type: ignore[method-assign]


def check_hydra(config: DictConfig) -> None:
    """Check the `hydra` node of a composed configuration.

    Raises:
        ConfigError: it would instantiate something other than this program's callbacks and Hydra's plugins, log to somewhere else than the
            terminal and the run's folder, or change the environment, the working folder or the folder of Hydra's files.
    """
    hydra = config.hydra
    for name, callback in _items(hydra, "callbacks", "hydra"):
        _check_call(callback, f"hydra.callbacks.{name}", CALLBACKS)
    for part in ("launcher", "sweeper"):
        node = _value(hydra, part)
        if node is not None:
            _check_call(node, f"hydra.{part}", PLUGINS)
    for name, _ in _items(_value(hydra, "sweeper"), "params", "hydra.sweeper"):
        if str(name).lstrip("+~").startswith("hydra"):
            raise ConfigError(f"hydra.sweeper.params.{name}: Hydra's own settings are not searched over")
    for part in ("hydra_logging", "job_logging"):
        _check_logging(_value(hydra, part), f"hydra.{part}")
    for key in hydra:
        if key not in ("callbacks", "launcher", "sweeper", "hydra_logging", "job_logging"):
            _reject_calls(_value(hydra, key), f"hydra.{key}")
    _check_job(hydra)


def _check_call(node: Any, key_path: str, allowed: tuple[str, ...]) -> None:
    """Check a node that Hydra instantiates: an allowed target, and no call below it."""
    target = _value(node, "_target_") if isinstance(node, DictConfig) else None
    names = [name for name in allowed if not name.endswith(".")]
    packages = tuple(name for name in allowed if name.endswith("."))
    if not isinstance(target, str) or not (target in names or target.startswith(packages)) or OmegaConf.is_interpolation(node, "_target_"):
        raise ConfigError(f"{key_path}: _target_ {target!r} is not registered by this program: {WHY}")
    for key in node:
        if key != "_target_":
            _reject_call(node, key, key_path)


def _reject_calls(node: Any, key_path: str) -> None:
    if isinstance(node, DictConfig | ListConfig):
        for key in _keys(node):
            _reject_call(node, key, key_path)


def _reject_call(node: Any, key: Any, key_path: str) -> None:
    value = _value(node, key)
    if key in CALLS or (OmegaConf.is_interpolation(node, key) and isinstance(value, DictConfig | ListConfig)):
        raise ConfigError(f"{key_path}: {key} is not allowed there: {WHY}")
    _reject_calls(value, f"{key_path}.{key}")


def _check_logging(node: Any, key_path: str) -> None:
    """Check a dictionary for logging.config: it can call factories and import classes by name."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    raw: Any = OmegaConf.to_container(node, resolve=False)
    for key in _keys(node):
        value = _value(node, key)
        if isinstance(value, DictConfig | ListConfig):
            _check_logging(value, f"{key_path}.{key}")
        elif key in ("()", "class", "_target_") and value not in LOGGING:
            raise ConfigError(f"{key_path}: {value!r} is not one of the allowed handlers and formatters ({', '.join(LOGGING)}): {WHY}")
        elif isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in STREAMS:
            raise ConfigError(f"{key_path}.{key}: {value!r} is not one of {', '.join(STREAMS)}: {WHY}")
        elif key == "filename" and not LOG_FILE.fullmatch(str(raw[key])):
            raise ConfigError(f"{key_path}.filename: a log is kept in the run's folder: ${{hydra.runtime.output_dir}}/NAME.log")


def _check_job(hydra: DictConfig) -> None:
    """Check the folder, working folder and environment of a job."""
    if _value(hydra.job, "chdir"):
        raise ConfigError("hydra.job.chdir=true would change what relative paths mean, those of plugins included: leave it out")
    subdir = _value(hydra, "output_subdir")
    if subdir is not None and (os.path.isabs(str(subdir)) or ".." in str(subdir).split("/")):
        raise ConfigError(f"hydra.output_subdir={subdir}: Hydra's files are kept within the run's folder")
    typed = " ".join(map(str, hydra.overrides.hydra))
    for name, _ in _items(hydra.job, "env_set", "hydra.job"):
        if not str(name).startswith(VARIABLES) and not re.search(rf"(?:^|\s)[+~]*hydra\.job\.env_set\.{re.escape(str(name))}=", typed):
            raise ConfigError(f"hydra.job.env_set.{name}: a configuration file doesn't set this variable; set it in the shell: {WHY}")


def _items(node: Any, key: str, key_path: str) -> list[tuple[Any, Any]]:
    """The resolved items of a mapping below a node; none without it."""
    value = _value(node, key) if isinstance(node, DictConfig) else None
    if value is None:
        return []
    if not isinstance(value, Mapping | DictConfig):
        raise ConfigError(f"{key_path}.{key} takes settings by name, not {value!r}")
    return [(name, _value(value, name)) for name in value]


def _keys(node: DictConfig | ListConfig) -> list[Any]:
    return list(node) if isinstance(node, DictConfig) else list(range(len(node)))


def _value(node: Any, key: Any) -> Any:
    """A value with references resolved; None for one that is missing or can't be resolved yet."""
    try:
        return node[key]
    except (OmegaConfBaseException, KeyError, TypeError, ValueError):
        return None
