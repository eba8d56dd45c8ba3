"""What a run leaves of its command: a configuration that runs it again, and no secrets, in Hydra's own files either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.overrides import FLAGS_WITH_VALUE
from rlhf_lightning.config.presets import list_presets, preset_file, root
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.config.yaml_check import check_search_path, check_yaml
from rlhf_lightning.errors import ConfigError, DataError

FILE = "config.yaml"
HEADING = "# To run this again: python train.py --config-path THIS_FOLDER\n"
PRESETS = ("trainer", "logger")
"""Groups whose options may be chosen anew for a saved configuration: how it is run."""
_PATH_FLAGS = ("--config-path", "-cp")
_FOLDER_FLAGS = (*_PATH_FLAGS, "--config-dir", "-cd")
_STORED = "saved_run"
"""The name of a saved configuration in Hydra's store, which takes it whatever its folder is called."""


def save(config: DictConfig, folder: Path) -> None:
    """Write the composed configuration into the run's folder, so that `python train.py --config-path FOLDER` runs it again."""
    write_atomic(folder / FILE, text(config))


def text(config: DictConfig) -> str:
    """What `save` writes.

    Seeds and other references stay references, secrets are left out, and where the new run writes is conf/config.yaml's affair.
    """
    menu = root()
    hydra_s = [{key: value} for entry in menu["defaults"] if isinstance(entry, dict) for key, value in entry.items() if "hydra/" in key]
    whole = {"defaults": [*hydra_s, "_self_"], **without_secrets(config), "hydra": menu["hydra"]}
    return HEADING + OmegaConf.to_yaml(OmegaConf.create(whole))


def absolute_config_path(words: Sequence[str]) -> list[str]:
    """The words with a `--config-path` or `--config-dir` of the working folder as an absolute path: Hydra looks for the first beside the
    program, and takes a name that begins with a dash for a flag."""
    found = list(words)
    for i, word in enumerate(found):
        flag, equals, path = word.partition("=")
        if flag in _FOLDER_FLAGS and equals and Path(path).is_dir():
            found[i] = f"{flag}={Path(path).resolve()}"
        elif word in _FOLDER_FLAGS and i + 1 < len(found) and Path(found[i + 1]).is_dir():
            found[i + 1] = str(Path(found[i + 1]).resolve())
    return found


def from_store(words: Sequence[str]) -> list[str]:
    """The words with `--config-path RUN` replaced by the name under which that run's configuration is put into Hydra's store.

    Hydra writes the path of a configuration into the configuration itself, where it doesn't take every name. `trainer=...` and `logger=...`
    choose presets in place of the saved ones; another path is left to Hydra.

    Raises:
        ConfigError: a name that Hydra can't take, of a folder that is no run's.
        DataError: the run's configuration can't be read.
    """
    rest, folder = _without_path(words)
    if any(word.partition("=")[0] in ("--config-name", "-cn") for word in words) or folder is None or not is_saved(folder):
        _check_names(words)
        return list(words)
    content, presets = _load(folder), list_presets()
    others = []
    for word in rest:
        group, _, option = word.partition("=")
        if group in PRESETS and option in presets.get(group, {}):
            content[group] = OmegaConf.load(preset_file(group, option))
        else:
            others.append(word)
    ConfigStore.instance().store(name=_STORED, node=content)
    return [*others, "--config-name", _STORED]


def is_saved(folder: Path) -> bool:
    """Whether a folder holds what `save` writes."""
    try:
        with (folder / FILE).open(encoding="utf-8") as file:
            return file.readline() == HEADING
    except (OSError, ValueError):
        return False


def _load(folder: Path) -> Any:
    try:
        check_yaml(str(folder / FILE))
        content = OmegaConf.load(folder / FILE)
    except (OSError, ValueError, YAMLError) as cause:
        raise DataError(f"{folder / FILE} can't be read as YAML ({' '.join(str(cause).split())}): bring it back from a copy") from cause
    if not isinstance(content, DictConfig):
        raise DataError(f"{folder / FILE} holds no settings: bring it back from a copy")
    check_search_path(content, str(folder / FILE))
    return content


def _without_path(words: Sequence[str]) -> tuple[list[str], Path | None]:
    """The words without `--config-path`, and its folder."""
    rest, folder, remaining = [], None, iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag in _PATH_FLAGS and (equals or flag == word):
            folder = Path(value if equals else next(remaining, ""))
        else:
            rest.append(word)
    return rest, folder


def _check_names(words: Sequence[str]) -> None:
    for before, word in zip(["", *words], words, strict=False):
        flag, _, value = word.partition("=")
        path = value if flag in _FOLDER_FLAGS else word if before in _FOLDER_FLAGS else ""
        if "${" in path or (path.endswith((".yaml", ".yml")) and Path(path).is_dir()):
            raise ConfigError(f"{path}: Hydra can't read configurations in a folder of this name (no ${{, no .yaml at its end): rename it")


def move_flags_last(words: Sequence[str]) -> list[str]:
    """The words with Hydra's flags behind the overrides: it takes no override in front of a flag and another behind it, which is what
    Lightning makes of a command with `--config-path` for the processes that it starts."""
    behind = [word.startswith("-") or before in FLAGS_WITH_VALUE for before, word in zip(["", *words], words, strict=False)]
    return [word for word, flag in sorted(zip(words, behind, strict=True), key=lambda pair: pair[1])]


def redact_hydra_files(config: DictConfig, about: Any) -> None:
    """Take secrets out of what Hydra has written of a job and its sweep: it writes every override as it was typed.

    Args:
        about: the job's `hydra` node.
    """
    nodes = [OmegaConf.to_container(node, resolve=False) for node in (config, about)]
    if without_secrets(nodes) == nodes:
        return
    for file in _written(about):
        OmegaConf.save(OmegaConf.create(without_secrets(OmegaConf.load(file))), file)


def _written(about: Any) -> Iterator[Path]:
    if about.output_subdir:
        yield from sorted((Path(about.runtime.output_dir) / about.output_subdir).glob("*.yaml"))
    sweep = Path(about.sweep.dir) / "multirun.yaml"
    if sweep.is_file():
        yield sweep
