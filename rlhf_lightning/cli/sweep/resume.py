"""Resume a killed sweep: check that the command is the same, and skip the jobs that have finished."""

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
    """Reject a command that differs from that of the folder's sweep: one table would mix two sweeps.

    Raises:
        ConfigError: the folder's sweep was started with other overrides or another search space.
    """
    file = real_folder(config.hydra.sweep.dir) / resume.SWEEP
    if not is_complete(file):  # none, or cut off by a kill: no job has started
        return
    before, now = sweep_overrides(OmegaConf.load(file)), sweep_overrides(config)
    removed, added = [text for text in before if text not in now], [text for text in now if text not in before]
    if removed or added:
        changes = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in (("there", removed), ("here", added)) if texts)
        raise ConfigError(
            f"{file.parent} has the jobs of another sweep ({changes}): give the same overrides to resume it, or another hydra.sweep.dir"
        )


def sweep_overrides(config: Any) -> list[str]:
    """The overrides of a sweep's command and of its search space, without secrets."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    params = [f"{key}={value}" for key, value in (node["sweeper"].get("params") or {}).items()]
    overrides: list[str] = without_secrets([*map(str, node["overrides"]["task"]), *params])
    return overrides


def saved_objective(config: DictConfig, folder: Path) -> float | None:
    """The objective of a job that finished here with the same settings; None if it must run.

    A killed job resumes from its newest checkpoint. Checkpoints of other settings and the error of an earlier attempt are deleted.

    Raises:
        ConfigError: a job of other settings finished in this folder.
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


def refuse_space_without_sweep(node: Any) -> None:
    """Reject a search space for a single run.

    Args:
        node: the run's `hydra` node.

    Raises:
        ConfigError: the command names a search space (hparams=...) and doesn't sweep.
    """
    space = node.sweeper.get("params")
    if space:
        raise ConfigError(f"hparams=... defines a sweep over {', '.join(map(str, space))}: add -m, or leave hparams=... out")
