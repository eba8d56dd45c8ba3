"""A killed sweep goes on: its folder says which command it is of, and which of its jobs have ended well."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint.store import remove_checkpoints
from rlhf_lightning.cli.sweep.jobs import ERROR_FILE
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.output_folder import is_complete, real_folder


def refuse_another_sweep(config: DictConfig) -> None:
    """A folder holds the jobs of one command: the same words go on with it, others would mix two sweeps under one table.

    Raises:
        ConfigError: the folder's sweep was started with other words or another search space.
    """
    file = real_folder(config.hydra.sweep.dir) / resume.SWEEP
    if not is_complete(file):  # none, or a kill while Hydra wrote it: no job has begun
        return
    before, now = asked(OmegaConf.load(file)), asked(config)
    gone, come = [word for word in before if word not in now], [word for word in now if word not in before]
    if gone or come:
        differing = "; ".join(f"{which}: {' '.join(words)}" for which, words in (("there", gone), ("here", come)) if words)
        raise ConfigError(
            f"{file.parent} holds the jobs of another sweep ({differing}): give the same words to go on with it, or another hydra.sweep.dir"
        )


def asked(config: Any) -> list[str]:
    """The words of a sweep's command and of its search space, without secrets."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    params = [f"{key}={value}" for key, value in (node["sweeper"].get("params") or {}).items()]
    found: list[str] = without_secrets([*map(str, node["overrides"]["task"]), *params])
    return found


def saved_objective(config: DictConfig, folder: Path) -> float | None:
    """The objective of a job that has ended well in this folder with these very settings; None where it is still to run.

    A job that was killed goes on from its newest checkpoint. Checkpoints of other settings, and why an earlier attempt failed, are deleted.

    Raises:
        ConfigError: a job of other settings has ended well in this folder.
    """
    settings, result = folder / saved_config.FILE, folder / resume.RESULT
    if settings.is_file() and settings.read_text(encoding="utf-8") == saved_config.text(config):
        if result.is_file():
            resume.tidy(folder)
            return float(json.loads(result.read_text(encoding="utf-8"))["objective"])
        os.environ[resume.FLAG] = str(folder.resolve())
    else:
        resume.check_result(folder)
        remove_checkpoints(folder / resume.CHECKPOINTS)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    return None


def refuse_space_without_sweep(about: Any, in_sweep: bool) -> None:
    """A search space says nothing to a single run.

    Args:
        about: the run's `hydra` node.

    Raises:
        ConfigError: the command names a search space (hparams=...) and doesn't sweep.
    """
    space = about.sweeper.get("params")
    if space and not in_sweep:
        raise ConfigError(f"the command names values to try of {', '.join(map(str, space))}: add -m, or leave hparams=... out")
