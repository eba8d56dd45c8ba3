"""`resume=RUN`: a run that was stopped goes on, from the configuration that it left in its folder. `resume=auto`: one command begins a run
and goes on with it, for whoever gives it again: torchrun, a queue, a loop of the shell.

Everything a run does follows from its configuration and its seed, but for its trainings; a resumed run does it all again, and each training
goes on from its newest whole checkpoint, or is over at once where it was. It then leaves what it would have left without the stop.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from rlhf_lightning.checkpoint import run_record
from rlhf_lightning.checkpoint.input_digests import changed_inputs
from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.checkpoint.store import remove_checkpoints
from rlhf_lightning.config.atomic_write import remove_temporaries
from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.config.redaction import LEFT_OUT
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.runtime import stopwatch
from rlhf_lightning.runtime.composition import path_settings
from rlhf_lightning.runtime.saved_config import FILE
from rlhf_lightning.training.launch import this_launch

RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FLAG = "RLHF_LIGHTNING_RESUMES"
"""Names the folder that this process resumes, or says AUTO."""
AUTO = "auto"
SWEEP = "multirun.yaml"
"""What Hydra writes of a sweep into its folder."""
_OF_THE_FOLDER = ("hydra.sweep.dir=", "hydra.mode=")


def finished(words: Sequence[str]) -> Path | None:
    """The folder that `resume=RUN` names, where that run is already complete."""
    folder = _named(words)
    return folder if folder is not None and str(folder) != AUTO and (folder / RESULT).is_file() else None


def expand_resume(words: Sequence[str]) -> list[str]:
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
    if (folder / SWEEP).is_file():
        return [*_sweep_words(folder), *(word for word in words if not word.startswith("resume="))]
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
    return [*others, f"hydra.run.dir={quote_value(str(folder.resolve()))}", "--config-path", str(folder.resolve())]


def _sweep_words(folder: Path) -> list[str]:
    """The command of a sweep, from what Hydra wrote of it into its folder.

    Raises:
        ConfigError: the command had a secret, or a configuration of its own, and must be given again.
        DataError: it can't be read.
    """
    try:
        node: Any = OmegaConf.to_container(OmegaConf.load(folder / SWEEP), resolve=False)
        overrides, name = node["hydra"]["overrides"], node["hydra"]["job"]["config_name"]
        sources = {source["provider"]: source["path"] for source in node["hydra"]["runtime"]["config_sources"]}
        words = [*map(str, overrides["task"]), *(str(word) for word in overrides["hydra"] if not word.startswith(_OF_THE_FOLDER))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError) as cause:
        raise DataError(f"{folder / SWEEP} can't be read ({type(cause).__name__}: {cause}): give the sweep's command again") from cause
    if name != "config" or sources.get("main") != str(CONF) or "command-line" in sources or any(LEFT_OUT in word for word in words):
        why = "a secret in its command" if any(LEFT_OUT in word for word in words) else "a configuration of its own"
        shown = shlex.quote(f"hydra.sweep.dir={quote_value(str(folder))}")
        raise ConfigError(f"resume={folder}: the sweep has {why}, which its folder doesn't hold: give the command again with {shown}")
    return ["-m", *words, f"hydra.sweep.dir={quote_value(str(folder.resolve()))}"]


def _may_be_told(word: str) -> bool:
    key = word.lstrip("+~")
    return run_record.may_change(key) or key.startswith(("trainer=", "logger="))


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


def prepare(config: DictConfig, folder: Path, log: Callable[[str], None]) -> None:
    """Make sure that this command may begin in the folder, or go on there, and record what it begins with. On the first process alone.

    Settings of how it is run (trainer, logger, checkpoint) may differ from those that it was begun with, and are said, as are libraries of
    other versions. What a killed process left of its writes is deleted.

    Raises:
        ConfigError: the folder holds another run, finished or stopped, or this one was begun with other settings.
        DataError: files that the run read when it began have another content, and `checkpoint.accept_changed_inputs` isn't set.
    """
    check_folder(folder)
    if not is_resumed(folder) or not (folder / FILE).is_file():
        for file in (stopwatch.FILE, "quarantine.jsonl") if (folder / run_record.FILE).is_file() else ():
            (folder / file).unlink(missing_ok=True)  # of an attempt that had no checkpoint
        remove_leftovers(folder, log)
        run_record.write(config, folder, input_paths(config))
        return
    record = check_settings(config, folder, log)
    if (folder / RESULT).is_file():
        return
    for change in run_record.version_changes(record):
        log(f"{folder} was begun with other libraries: {change}; numbers may differ in their last digits")
    remove_leftovers(folder, log)
    if record is None or _accepted(folder, record["inputs"], bool(config.checkpoint.accept_changed_inputs), log):
        run_record.write(config, folder, input_paths(config))


def input_paths(config: DictConfig) -> list[str]:
    """The values of all settings that are paths, with their references resolved."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    return [path for _, path in path_settings(resolved)]


def check_settings(config: DictConfig, folder: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """Hold the settings to those that the folder's run was begun with; returns its record, None where there is none.

    Raises:
        ConfigError: a setting of what is learned is another.
    """
    record = run_record.read(folder)
    saved: Any = OmegaConf.load(folder / FILE)
    before = run_record.flat_settings(OmegaConf.masked_copy(saved, [str(key) for key in saved if str(key) not in ("hydra", "defaults")]))
    now = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    _hold_settings(folder, before if record is None else record["settings"], run_record.flat_settings(now), log)
    return record


def remove_leftovers(folder: Path, log: Callable[[str], None]) -> None:
    """Delete what a killed process left in a run's folder: half-written files and folders, and stacks that no watchdog wrote."""
    removed = remove_temporaries(folder)
    for file in folder.glob("stalled_*.txt"):
        if file.is_file() and not file.stat().st_size:
            file.unlink()
            removed.append(file.name)
    if removed:
        log(f"{folder}: removed what a killed process had left ({', '.join(sorted(removed))})")


def tidy(folder: Path) -> None:
    """`clean_finished` under the folder's lock; nothing where another process works in the folder."""
    with suppress(ConfigError, OSError), lock_folder(folder):
        clean_finished(folder)


def clean_finished(folder: Path) -> None:
    """Delete what a run left that was killed after its result: checkpoints, seconds, half-written files. The caller has the lock."""
    try:
        saved: Any = OmegaConf.to_container(OmegaConf.load(folder / FILE), resolve=False)
        keep = bool(saved["checkpoint"]["keep_finished"])
    except (OSError, ValueError, KeyError, TypeError, YAMLError):
        keep = True
    remove_leftovers(folder, lambda text: None)
    (folder / stopwatch.FILE).unlink(missing_ok=True)
    if not keep:
        remove_checkpoints(folder / CHECKPOINTS)
        for file in folder.glob("logs/*_before_*.csv"):
            file.unlink()


def _hold_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], log: Callable[[str], None]) -> None:
    different = run_record.differences(before, now)
    other = [f"{name}: {change}" for name, change in different.items() if not run_record.may_change(name)]
    if other:
        mend = f"give the command of before, or go on with the run's own by resume={folder}"
        if os.environ.get(FLAG) != AUTO:
            mend = f"put it back in {folder / FILE}"
        raise ConfigError(
            f"{folder} was begun with other settings ({'; '.join(other)}): {mend}; for another run choose another folder (hydra.run.dir)"
        )
    for name, change in different.items():
        log(f"{folder} was begun with another setting: {name}: {change}")


def _accepted(folder: Path, inputs: Mapping[str, str], accept: bool, log: Callable[[str], None]) -> bool:
    """Whether inputs have changed and that is accepted."""
    told = changed_inputs(inputs, folder)
    if told and not accept:
        raise DataError(
            f"{folder}: input files changed since the run started: {'; '.join(told)}; restore them, or continue all the same with "
            "checkpoint.accept_changed_inputs=true"
        )
    for text in told:
        log(f"{text}, and the run continues with it (checkpoint.accept_changed_inputs)")
    return bool(told)


def check_result(folder: Path) -> None:
    """Raises ConfigError where the folder holds a finished run."""
    if (folder / RESULT).is_file():
        raise ConfigError(
            f"{folder} holds a run that is finished, and its files stay as they are: choose another folder (hydra.run.dir), or leave "
            "hydra.run.dir out for a new one"
        )


def is_resumed(folder: Path) -> bool:
    """Whether the command goes on with the run of this folder."""
    return os.environ.get(FLAG) in (AUTO, str(folder.resolve()))


def check_folder(folder: Path) -> None:
    """Refuse to begin anew where another run was finished or stopped.

    Raises:
        ConfigError: the folder holds a result or checkpoints, and the command doesn't resume that run.
    """
    if is_resumed(folder):
        return
    check_result(folder)
    if (folder / CHECKPOINTS).is_dir():
        raise ConfigError(
            f"{folder} holds the checkpoints of a run that was stopped: go on with it by resume={folder}, choose another folder "
            f"(hydra.run.dir), or delete {folder / CHECKPOINTS}"
        )


def _named(words: Sequence[str]) -> Path | None:
    """The folder as it is typed, also with quotes of Hydra's around it or a ~ in front."""
    paths = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if not paths:
        return None
    name = paths[-1]
    bare = name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name
    candidates = [Path(name), Path(name).expanduser(), Path(bare), Path(bare).expanduser()]
    return next((path for path in candidates if path.is_dir()), candidates[0])
