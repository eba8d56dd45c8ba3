"""`resume=RUN`: a run that was stopped goes on, from the configuration that it left in its folder. `resume=auto`: one command begins a run
and goes on with it, for whoever gives it again: torchrun, a queue, a loop of the shell.

Everything a run does follows from its configuration and its seed, but for its trainings; a resumed run does it all again, and each training
goes on from its newest whole checkpoint, or is over at once where it was. It then leaves what it would have left without the stop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint import begun
from rlhf_lightning.checkpoint.inputs import changed
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.launch import this_launch
from rlhf_lightning.saved_config import FILE

RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FLAG = "RLHF_LIGHTNING_RESUMES"
"""Names the folder that this process resumes, or says AUTO."""
AUTO = "auto"


def finished(words: Sequence[str]) -> Path | None:
    """The folder that `resume=RUN` names, where that run is already complete."""
    folder = _named(words)
    return folder if folder is not None and str(folder) != AUTO and (folder / RESULT).is_file() else None


def spelled_out(words: Sequence[str]) -> list[str]:
    """The command of a resumed run, as Hydra takes it; any other command as it is.

    Raises:
        ConfigError: no such run, overrides that would make another run of it, or `resume=auto` without a folder to look in.
    """
    os.environ.pop(FLAG, None)
    folder = _named(words)
    if folder is None:
        return list(words)
    if str(folder) == AUTO:
        return _automatic(words)
    if not (folder / FILE).is_file():
        raise ConfigError(f"resume={folder}: there is no {FILE}, so this is not the folder of a run; name the folder that a run printed")
    others = [word for word in words if not word.startswith("resume=")]
    other = [word for word in others if not _may_be_told(word)]
    if other:
        raise ConfigError(
            f"resume={folder} goes on with the run's own configuration, and {other[0]} would make another run of it: leave it out, or "
            f"begin anew with `{other[0]} --config-path {folder}`; a resumed run may be told trainer, logger and checkpoint settings"
        )
    os.environ[FLAG] = str(folder.resolve())
    return [*others, f"hydra.run.dir={folder.resolve()}", "--config-path", str(folder.resolve())]


def _may_be_told(word: str) -> bool:
    key = word.lstrip("+~")
    return begun.may_change(key) or key.startswith(("trainer=", "logger="))


def _automatic(words: Sequence[str]) -> list[str]:
    others = [word for word in words if not word.startswith("resume=")]
    if {"-m", "--multirun"} & set(others):
        raise ConfigError("a sweep goes on by itself where it is given the same words and hydra.sweep.dir: leave resume=auto out")
    launch = this_launch()
    if not any(word.startswith("hydra.run.dir=") for word in others) and not (launch.job or launch.meets):
        raise ConfigError(
            "resume=auto looks in the run's folder for what there is to go on with, and a folder named by the time is a new one at each "
            "start: name it, hydra.run.dir=runs/mine"
        )
    os.environ[FLAG] = AUTO
    return others


def complete(folder: Path) -> float | None:
    """What a run under `resume=auto` returned that is over; None where it isn't, or wasn't asked to go on."""
    if os.environ.get(FLAG) != AUTO or not (folder / RESULT).is_file():
        return None
    return float(json.loads((folder / RESULT).read_text(encoding="utf-8"))["objective"])


def prepare(config: DictConfig, folder: Path, say: Callable[[str], None]) -> None:
    """Make sure that this command may begin in the folder, or go on there, and record what it begins with. On the first process alone.

    Settings of how it is run (trainer, logger, checkpoint) may differ from those that it was begun with, and are said.

    Raises:
        ConfigError: the folder holds a stopped run that the command doesn't resume, or was begun with other settings.
        DataError: files that the run read when it began have another content, and `checkpoint.accept_changed_inputs` isn't set.
    """
    check_folder(folder)
    if not _resumed(folder) or not (folder / FILE).is_file():
        (folder / RESULT).unlink(missing_ok=True)  # of a run that was here before
        begun.write(config, folder)
        return
    record = begun.read(folder)
    saved: Any = OmegaConf.load(folder / FILE)
    before = begun.settings_of(OmegaConf.masked_copy(saved, [str(key) for key in saved if str(key) not in ("hydra", "defaults")]))
    _hold_settings(folder, before if record is None else record["settings"], begun.settings_of(config), say)
    if record is None or _accepted(folder, record["inputs"], bool(config.checkpoint.accept_changed_inputs), say):
        begun.write(config, folder)


def _hold_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], say: Callable[[str], None]) -> None:
    different = begun.differences(before, now)
    other = [f"{name}: {change}" for name, change in different.items() if not begun.may_change(name)]
    if other:
        mend = f"give the command of before, or go on with the run's own by resume={folder}"
        if os.environ.get(FLAG) != AUTO:
            mend = f"put it back in {folder / FILE}"
        raise ConfigError(
            f"{folder} was begun with other settings ({'; '.join(other)}): {mend}; for another run choose another folder (hydra.run.dir)"
        )
    for name, change in different.items():
        say(f"{folder} was begun with another setting: {name}: {change}")


def _accepted(folder: Path, inputs: Mapping[str, str], accept: bool, say: Callable[[str], None]) -> bool:
    """Whether inputs have changed and that is accepted."""
    told = changed(inputs, folder)
    if told and not accept:
        raise DataError(
            f"{folder}: what the run read when it began is another now: {'; '.join(told)}; bring it back, or go on all the same by "
            "checkpoint.accept_changed_inputs=true"
        )
    for text in told:
        say(f"{text}, and the run goes on with it (checkpoint.accept_changed_inputs)")
    return bool(told)


def _resumed(folder: Path) -> bool:
    return os.environ.get(FLAG) in (AUTO, str(folder.resolve()))


def check_folder(folder: Path) -> None:
    """Refuse to begin anew where another run was stopped.

    Raises:
        ConfigError: the folder holds checkpoints, and the command doesn't resume them.
    """
    if (folder / CHECKPOINTS).is_dir() and not _resumed(folder):
        raise ConfigError(
            f"{folder} holds the checkpoints of a run that was stopped: go on with it by resume={folder}, choose another folder "
            f"(hydra.run.dir), or delete {folder / CHECKPOINTS}"
        )


def _named(words: Sequence[str]) -> Path | None:
    paths = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    return Path(paths[-1]) if paths else None
