"""The configuration that a run saves to be run again, and the removal of secrets from Hydra's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import without_secrets
from rlhf_lightning.config.presets import root
from rlhf_lightning.config.yaml_check import check_search_path, check_yaml
from rlhf_lightning.config.yaml_dump import to_yaml
from rlhf_lightning.errors import DataError

FILE = "config.yaml"
HEADING = "# To run this again: python train.py --config-path THIS_FOLDER\n"


def save(config: DictConfig, folder: Path) -> None:
    """Save the composed configuration for `python train.py --config-path FOLDER`."""
    write_atomic(folder / FILE, text(config))


def text(config: DictConfig) -> str:
    """Format the configuration as `save` writes it.

    Seeds and other references stay references, and secrets are left out. The folder of the new run is that of conf/config.yaml.
    """
    menu = root()
    defaults = [{key: value} for entry in menu["defaults"] if isinstance(entry, dict) for key, value in entry.items() if "hydra/" in key]
    content = {"defaults": [*defaults, "_self_"], **without_secrets(config), "hydra": menu["hydra"]}
    return HEADING + to_yaml(content)


def is_saved(folder: Path) -> bool:
    """Return whether a folder has a configuration that `save` wrote."""
    try:
        with (folder / FILE).open(encoding="utf-8") as file:
            return file.readline() == HEADING
    except (OSError, ValueError):
        return False


def load(folder: Path) -> Any:
    """Read a saved configuration. Raises DataError for one that can't be read."""
    try:
        check_yaml(str(folder / FILE))
        content = OmegaConf.load(folder / FILE)
    except (OSError, ValueError, YAMLError) as cause:
        raise DataError(f"{folder / FILE} can't be read as YAML ({' '.join(str(cause).split())}): bring it back from a copy") from cause
    if not isinstance(content, DictConfig):
        raise DataError(f"{folder / FILE} has no settings: bring it back from a copy")
    check_search_path(content, str(folder / FILE))
    return content


def redact_hydra_files(config: DictConfig, hydra: Any) -> None:
    """Remove secrets from Hydra's files of a job and its sweep: they have every override as typed.

    Args:
        hydra: the job's `hydra` node.
    """
    nodes = [OmegaConf.to_container(node, resolve=False) for node in (config, hydra)]
    if without_secrets(nodes) == nodes:
        return
    for file in _hydra_files(hydra):
        OmegaConf.save(OmegaConf.create(without_secrets(OmegaConf.load(file))), file)


def _hydra_files(hydra: Any) -> Iterator[Path]:
    if hydra.output_subdir:
        yield from sorted((Path(hydra.runtime.output_dir) / hydra.output_subdir).glob("*.yaml"))
    sweep = Path(hydra.sweep.dir) / "multirun.yaml"
    if sweep.is_file():
        yield sweep
