"""The YAML of conf/: the groups that are no components (trainer, logger, experiment) and their options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def list_presets(conf: Path = CONF) -> dict[str, dict[str, list[str]]]:
    """The groups with their options and each option's settings."""
    folders = sorted(folder for folder in conf.iterdir() if folder.is_dir())
    return {folder.name: {f.stem: [str(key) for key in OmegaConf.load(f)] for f in sorted(folder.glob("*.yaml"))} for folder in folders}


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
