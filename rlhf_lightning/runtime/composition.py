"""The composed configuration, validated before heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.config import schema
from rlhf_lightning.config.display import missing_secret
from rlhf_lightning.config.presets import list_presets
from rlhf_lightning.config.schema import did_you_mean, validate
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.card import check_push
from rlhf_lightning.registry import GROUPS, Component, build, build_section, component_of, components, section_class, section_names
from rlhf_lightning.tracking.logger_settings import logger_settings
from rlhf_lightning.training.trainer import check_trainer

PLAIN = ("seed", "trainer", "logger")
"""Top-level keys that are neither a group nor a section."""
PRESET_KEYS = {"accelerator", "devices", "num_nodes", "strategy", "precision"}
"""Of which a preset of trainer has some."""
MAX_SEED = 2**31


class ComposedConfig:
    """A composed configuration by section and group; the argument of `register(check=...)`."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    def settings(self, name: str) -> Any:
        """The section `name` of the configuration as its dataclass."""
        return build_section(name, self.config[name])

    def component_of(self, group: str) -> Component:
        """The chosen option of a group.

        Raises:
            ConfigError: none is chosen.
        """
        if not self.config.get(group):
            names = ", ".join(component.name for component in components(group))
            raise ConfigError(f"this command chooses no {group} and needs one: add `{group}=...` to the command; there are: {names}")
        return component_of(self.config[group])

    def components_of(self, group: str) -> list[Component]:
        """The chosen options of a group, in order."""
        node = self.config.get(group)
        if not node:
            return []
        return [component_of(option) for option in node.values()] if GROUPS[group].many else [component_of(node)]

    def build(self, group: str, *args: Any) -> Any:
        """Build the chosen option of a group with these run-time arguments.

        Raises:
            ConfigError: none is chosen.
        """
        self.component_of(group)
        return build(self.config[group], *args)

    def build_all(self, group: str, *args: Any) -> dict[str, Any]:
        """Build the chosen options of a group that takes several, by name and in order."""
        options = {str(name): build(node, *args) for name, node in (self.config.get(group) or {}).items()}
        for built in options.values():
            if hasattr(built, "sandbox"):
                built.sandbox = self.build("sandbox")
        return options

    def require(self, *groups: str) -> None:
        """Run the checks of groups that need an option. Raises ConfigError."""
        for group in groups:
            if not (GROUPS[group].many and self.config.get(group)):
                self.component_of(group)
        self.run_checks(*groups)

    def run_checks(self, *groups: str) -> None:
        """Run the checks that the chosen options of these groups registered. Raises ConfigError."""
        for group in groups:
            for component in self.components_of(group):
                if component.check is not None:
                    component.check(self)


def expand_paths(config: DictConfig) -> None:
    """Expand `~` in place in the settings whose type is a path."""
    for _, target, node in _targets(config):
        schema.expand_paths(target, node)


def path_settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and path of every setting whose type is a path."""
    for key, target, node in _targets(config):
        for name, paths in schema.path_settings(target, node).items():
            yield from ((f"{key}.{name}", path) for path in paths)


def _targets(config: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    """Key, class or function, and node of every section and option of a composed configuration."""
    for name in section_names():
        yield name, section_class(name), config.get(name)
    for group, declared in GROUPS.items():
        node = config.get(group)
        if node and isinstance(node, Mapping):
            for key, option in [(f"{group}.{name}", option) for name, option in node.items()] if declared.many else [(group, node)]:
                if isinstance(option, Mapping):
                    yield key, component_of(option).target, option


def check(config: DictConfig) -> None:
    """Validate all sections and options against their types, choices, ranges and combinations.

    Raises:
        ConfigError: naming the key, what is allowed, and the nearest right name.
    """
    _check_top(config)
    missing = missing_secret(OmegaConf.to_container(config, resolve=False))
    if missing:
        raise ConfigError(f"{missing} is a secret and is not saved with the configuration: add `{missing}=...` to the command")
    for name in section_names():
        build_section(name, config[name])
    for group, declared in GROUPS.items():
        node = config.get(group)
        if node:
            if declared.many and not isinstance(node, Mapping):
                raise ConfigError(f"{group}={node}: {group} takes several options; write {group}=[{', '.join(map(str, [node]))}]")
            for name, option in node.items() if declared.many else [("", node)]:
                _check_option(group, option, f"{group}.{name}" if name else group)
    is_for_another_machine = bool(config.get("stage")) and "elsewhere" in ComposedConfig(config).component_of("stage").needs
    check_trainer(config.trainer, on_this_machine=not is_for_another_machine)
    logger_settings(config.logger)
    ComposedConfig(config).require("stage")


def _check_option(group: str, node: Any, key: str) -> None:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key}={node}: {key} takes settings; write {key}.<setting>=<value>")
    component = component_of(node)
    if component.group != group:
        raise ConfigError(f"{group} can't be {component.path}: that is an option of {component.group}")
    validate(component.target, node, key)


def _check_top(config: DictConfig) -> None:
    """Check the top-level keys and the seed."""
    required = [*section_names(), *PLAIN]
    allowed = [*GROUPS, *required, "push"]
    for key in config:
        if key not in allowed and key in list_presets():
            raise ConfigError(f"a file of conf/{key}/ that is no setting of its own begins with the line `# @package _global_`")
        if key not in allowed:
            raise ConfigError(f"no setting {key!r}{did_you_mean(str(key), allowed)}; the top of the menu: {', '.join(allowed)}")
    for name in required:
        # `~trainer` leaves the settings beside the preset.
        if name not in config or (name == "trainer" and isinstance(config.trainer, Mapping) and not PRESET_KEYS & set(config.trainer)):
            raise ConfigError(f"{name} is required and cannot be deleted")
    seed = config.seed
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < MAX_SEED:
        raise ConfigError(f"seed={seed} must be a whole number from 0 to {MAX_SEED - 1}")
    if config.get("push") is not None:
        check_push(config.push)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ConfigError("push=NAME in a sweep would upload every job to one name: leave it out, and push the best one's folder")
