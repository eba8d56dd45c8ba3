"""The YAML of conf/, and of the conf/ of plugins: the groups that are no components (trainer, logger, experiment) and their options."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


_of_plugins: list[Path] = []


class PluginPresets(SearchPathPlugin):
    """Shows Hydra the presets of plugins, behind conf/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in _of_plugins:
            search_path.append(provider="plugins of rlhf_lightning", path=f"file://{folder}")


def add(folder: Path, options: Collection[tuple[str, str]]) -> list[str]:
    """Put a plugin's folder of presets, laid out like conf/, beside it.

    Args:
        options: group and name of every component.

    Returns:
        What is to be said of a folder that is left out: it can't be read, or has a preset whose name is taken. Hydra would merge the two,
        or never read the second, in silence.
    """
    if folder in _of_plugins:
        return []
    try:
        brought = [(group, name) for group, names in list_presets(folder).items() for name in names]
    except Exception as cause:
        return [f"the presets of {folder} are left out: {type(cause).__name__}: {' '.join(str(cause).split())}"]
    for group, name in brought:
        owners = [place / group / f"{name}.yaml" for place in (CONF, *_of_plugins) if (place / group / f"{name}.yaml").is_file()]
        if owners or (group, name) in options:
            owner = owners[0] if owners else f"the component {group}={name}"
            return [f"the presets of {folder} are left out: {folder / group / name}.yaml has the name of {owner}; rename it"]
    from hydra.core.plugins import Plugins

    Plugins.instance().register(PluginPresets)
    _of_plugins.append(folder)
    return []


def list_presets(conf: Path | None = None) -> dict[str, dict[str, list[str]]]:
    """The groups with their options and each option's settings: of one folder, or of conf/ and those of plugins."""
    found: dict[str, dict[str, list[str]]] = {}
    for place in [CONF, *_of_plugins] if conf is None else [conf]:
        for folder in sorted(folder for folder in place.glob("*") if folder.is_dir()):
            options = {file.stem: [str(key) for key in OmegaConf.load(file)] for file in sorted(folder.glob("*.yaml"))}
            found.setdefault(folder.name, {}).update(options)
    return found


def preset_file(group: str, name: str) -> Path:
    """The file of a preset in conf/ or in the conf/ of a plugin."""
    return next(file for folder in (CONF, *_of_plugins) if (file := folder / group / f"{name}.yaml").is_file())


def root(conf: Path = CONF) -> Mapping[str, Any]:
    """conf/config.yaml as it is written, its list of defaults included."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"), resolve=False)
    return dict(content)


def default_options(conf: Path = CONF) -> dict[str, list[str]]:
    """What each group is where a command doesn't say: no option, one, or several."""
    found: dict[str, list[str]] = {}
    for entry in root(conf)["defaults"]:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            found[str(group)] = [] if option is None else [str(one) for one in option] if isinstance(option, list) else [str(option)]
    return found
