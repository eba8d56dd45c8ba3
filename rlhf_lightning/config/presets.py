"""The presets of conf/ and of plugins: groups without components (trainer, logger, experiment)."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


_plugin_folders: list[Path] = []


class PluginPresets(SearchPathPlugin):
    """Adds the presets of plugins to Hydra's search path, after conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in _plugin_folders:
            search_path.append(provider="plugins of rlhf_lightning", path=f"file://{folder}")


def add(folder: Path, options: Collection[tuple[str, str]]) -> list[str]:
    """Add a plugin's folder of presets, structured like conf/.

    Args:
        options: group and name of every component.

    Returns:
        Messages for a folder that is left out: it can't be read, or has a preset whose name is used. Hydra would silently merge the two,
        or never read the second.
    """
    if folder in _plugin_folders:
        return []
    try:
        added = [(group, name) for group, names in list_presets(folder).items() for name in names]
    except Exception as cause:
        return [f"the presets of {folder} are left out: {type(cause).__name__}: {' '.join(str(cause).split())}"]
    for group, name in added:
        owners = [conf / group / f"{name}.yaml" for conf in (CONF, *_plugin_folders) if (conf / group / f"{name}.yaml").is_file()]
        if owners or (group, name) in options:
            owner = owners[0] if owners else f"the component {group}={name}"
            return [f"the presets of {folder} are left out: {folder / group / name}.yaml has the name of {owner}; rename it"]
    from hydra.core.plugins import Plugins

    Plugins.instance().register(PluginPresets)
    _plugin_folders.append(folder)
    return []


def list_presets(conf: Path | None = None) -> dict[str, dict[str, list[str]]]:
    """The groups of one folder, or of conf/ and plugins, with their options and each option's settings."""
    groups: dict[str, dict[str, list[str]]] = {}
    for root_folder in [CONF, *_plugin_folders] if conf is None else [conf]:
        for folder in sorted(folder for folder in root_folder.glob("*") if folder.is_dir()):
            options = {file.stem: list(_settings_in(file, file.stat().st_mtime_ns)) for file in sorted(folder.glob("*.yaml"))}
            groups.setdefault(folder.name, {}).update(options)
    return groups


@functools.lru_cache(maxsize=1000)
def _settings_in(file: Path, modified: int) -> tuple[str, ...]:
    """The settings of a preset, read again when it was modified."""
    return tuple(str(key) for key in OmegaConf.load(file))


def preset_file(group: str, name: str) -> Path:
    """The file of a preset in conf/ or in the conf/ of a plugin."""
    return next(file for folder in (CONF, *_plugin_folders) if (file := folder / group / f"{name}.yaml").is_file())


@functools.cache
def root(conf: Path = CONF) -> Mapping[str, Any]:
    """The content of conf/config.yaml without resolving it, with its defaults list; read once."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"), resolve=False)
    return dict(content)


def default_options(conf: Path = CONF) -> dict[str, list[str]]:
    """The default options of each group: none, one, or several."""
    defaults: dict[str, list[str]] = {}
    for entry in root(conf)["defaults"]:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            defaults[str(group)] = [] if option is None else [str(name) for name in option] if isinstance(option, list) else [str(option)]
    return defaults
