"""What a run leaves of its command: a configuration that runs it again, and no secrets, in Hydra's own files either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.presets import root
from rlhf_lightning.secrets import without_secrets
from rlhf_lightning.whole_file import write_whole

FILE = "config.yaml"
_FLAGS = ("--config-path", "-cp")
FLAGS_WITH_VALUE = (*_FLAGS, "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c", "--info", "-i")


def save(config: DictConfig, folder: Path) -> None:
    """Write the composed configuration into the run's folder, so that `python train.py --config-path FOLDER` runs it again."""
    write_whole(folder / FILE, text(config))


def text(config: DictConfig) -> str:
    """What `save` writes.

    Seeds and other references stay references, secrets are left out, and where the new run writes is conf/config.yaml's affair.
    """
    menu = root()
    hydra_s = [{key: value} for entry in menu["defaults"] if isinstance(entry, dict) for key, value in entry.items() if "hydra/" in key]
    whole = {"defaults": [*hydra_s, "_self_"], **without_secrets(config), "hydra": menu["hydra"]}
    heading = "# To run this again: python train.py --config-path THIS_FOLDER\n"
    return heading + OmegaConf.to_yaml(OmegaConf.create(whole))


def from_here(words: Sequence[str]) -> list[str]:
    """The words with a `--config-path` of the working folder as an absolute path: Hydra looks for it beside the program."""
    found = list(words)
    for i, word in enumerate(found):
        flag, equals, path = word.partition("=")
        if flag in _FLAGS and equals and Path(path).is_dir():
            found[i] = f"{flag}={Path(path).resolve()}"
        elif word in _FLAGS and i + 1 < len(found) and Path(found[i + 1]).is_dir():
            found[i + 1] = str(Path(found[i + 1]).resolve())
    return found


def flags_last(words: Sequence[str]) -> list[str]:
    """The words with Hydra's flags behind the overrides: it takes no override in front of a flag and another behind it, which is what
    Lightning makes of a command with `--config-path` for the processes that it starts."""
    behind = [word.startswith("-") or before in FLAGS_WITH_VALUE for before, word in zip(["", *words], words, strict=False)]
    return [word for word, flag in sorted(zip(words, behind, strict=True), key=lambda pair: pair[1])]


def mask_hydra_s(config: DictConfig, about: Any) -> None:
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
