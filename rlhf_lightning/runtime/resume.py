"""`resume=RUN` continues a stopped run from its folder; `resume=auto` begins or continues one.

With `resume=auto` one command can be repeated: by torchrun, a queue, or a loop of the shell. Everything a run does follows from its
configuration and its seed. A resumed run does it all again, and each training continues from its newest complete checkpoint, or is
skipped if it had finished. The run then leaves the same files as without the stop.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from rlhf_lightning.checkpoint import run_record
from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.checkpoint.run_record import changed_inputs
from rlhf_lightning.checkpoint.store import remove_checkpoints
from rlhf_lightning.config.atomic_write import remove_temporaries
from rlhf_lightning.config.display import LEFT_OUT
from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.runtime import stopwatch
from rlhf_lightning.runtime.composition import path_settings
from rlhf_lightning.runtime.learning_rates import set_learning_rates
from rlhf_lightning.runtime.saved_config import FILE
from rlhf_lightning.training.launch import detect_launch

RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FLAG = "RLHF_LIGHTNING_RESUMES"
"""The environment variable with the folder that this process resumes, or AUTO."""
AUTO = "auto"
SWEEP = "multirun.yaml"
"""The file that Hydra writes into a sweep's folder."""
_FOLDER_OVERRIDES = ("hydra.sweep.dir=", "hydra.mode=")


def finished_run(args: Sequence[str]) -> Path | None:
    """The folder that `resume=RUN` names if that run is complete; None otherwise."""
    folder = _resume_folder(args)
    return folder if folder is not None and str(folder) != AUTO and (folder / RESULT).is_file() else None


def expand_resume(args: Sequence[str]) -> list[str]:
    """Replace `resume=` by the arguments of the run or sweep that is resumed.

    Raises:
        ConfigError: no such run, overrides that would change its results, or `resume=auto` without a folder to look in.
    """
    os.environ.pop(FLAG, None)
    folder = _resume_folder(args)
    if folder is None:
        return list(args)
    others = [argument for argument in args if not argument.startswith("resume=")]
    if str(folder) == AUTO:
        return _resume_automatically(others)
    if (folder / SWEEP).is_file():
        return [*_sweep_args(folder), *others]
    if not (folder / FILE).is_file():
        raise ConfigError(f"resume={folder}: there is no {FILE}, so this is not the folder of a run; name the folder that a run printed")
    free = ("trainer=", "logger=")
    changing = [word for word in others if not (run_record.may_change(key := word.lstrip("+~")) or key.startswith(free))]
    if changing:
        raise ConfigError(
            f"resume={folder} uses the run's own configuration, and {changing[0]} would make another run of it: leave it out, or begin "
            f"anew with `{changing[0]} --config-path {folder}`; only trainer, logger and checkpoint settings can be changed on resume"
        )
    os.environ[FLAG] = str(folder.resolve())
    return [*others, f"hydra.run.dir={quote_value(str(folder.resolve()))}", "--config-path", str(folder.resolve())]


def _sweep_args(folder: Path) -> list[str]:
    """The arguments of a sweep, from the file that Hydra wrote into its folder.

    Raises:
        ConfigError: the command had a secret, or a configuration of its own, and must be given again.
        DataError: it can't be read.
    """
    try:
        node: Any = OmegaConf.to_container(OmegaConf.load(folder / SWEEP), resolve=False)
        overrides, name = node["hydra"]["overrides"], node["hydra"]["job"]["config_name"]
        sources = {source["provider"]: source["path"] for source in node["hydra"]["runtime"]["config_sources"]}
        args = [*map(str, overrides["task"]), *(str(text) for text in overrides["hydra"] if not text.startswith(_FOLDER_OVERRIDES))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError) as cause:
        raise DataError(f"{folder / SWEEP} can't be read ({type(cause).__name__}: {cause}): give the sweep's command again") from cause
    if name != "config" or sources.get("main") != str(CONF) or "command-line" in sources or any(LEFT_OUT in text for text in args):
        missing = "a secret in its command" if any(LEFT_OUT in text for text in args) else "a configuration of its own"
        override = shlex.quote(f"hydra.sweep.dir={quote_value(str(folder))}")
        raise ConfigError(f"resume={folder}: the sweep has {missing}, not saved in its folder: give the command again with {override}")
    return ["-m", *args, f"hydra.sweep.dir={quote_value(str(folder.resolve()))}"]


def _resume_automatically(args: Sequence[str]) -> list[str]:
    if {"-m", "--multirun"} & set(args):
        raise ConfigError("a sweep resumes by itself when it is given the same overrides and hydra.sweep.dir: leave resume=auto out")
    launch = detect_launch()
    if not any(argument.startswith("hydra.run.dir=") for argument in args) and not (launch.job or launch.has_store):
        raise ConfigError(
            "resume=auto looks for checkpoints in the run's folder, and a folder named by the time is a new one at each start: name it, "
            "hydra.run.dir=runs/mine"
        )
    os.environ[FLAG] = AUTO
    return list(args)


def saved_objective(folder: Path) -> float | None:
    """The objective of a finished run under `resume=auto`; None without `resume=auto` or a result."""
    if os.environ.get(FLAG) != AUTO or not (folder / RESULT).is_file():
        return None
    return float(json.loads((folder / RESULT).read_text(encoding="utf-8"))["objective"])


def prepare(config: DictConfig, folder: Path, log: Callable[[str], None]) -> None:
    """Check that this run may begin or continue in the folder, and record it. On rank 0 only.

    Changes of trainer, logger and checkpoint settings and of library versions are logged. Half-written files of a killed process are
    deleted.

    Raises:
        ConfigError: the folder has another run, finished or stopped, or this run began with other settings.
        DataError: input files changed since the run started, and `checkpoint.accept_changed_inputs` isn't set.
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
        log(f"{folder} began with other library versions: {change}; numbers may differ in their last digits")
    remove_leftovers(folder, log)
    if record is None or _inputs_accepted(folder, record["inputs"], bool(config.checkpoint.accept_changed_inputs), log):
        run_record.write(config, folder, input_paths(config))


def input_paths(config: DictConfig) -> list[str]:
    """The values of all settings that are paths, with their references resolved."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return [re.sub(r"(\.py):\w+$", r"\1", path) for _, path in path_settings(resolved)]  # FILE.py:FUNCTION


def check_settings(config: DictConfig, folder: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """Compare the settings with those of the folder's run. Returns the run's record, if there is one.

    Raises:
        ConfigError: a setting that changes the results differs.
    """
    record = run_record.read(folder)
    saved: Any = OmegaConf.load(folder / FILE)
    before = run_record.flat_settings(OmegaConf.masked_copy(saved, [str(key) for key in saved if str(key) not in ("hydra", "defaults")]))
    now = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    set_learning_rates(now)
    _compare_settings(folder, before if record is None else record["settings"], run_record.flat_settings(now), log)
    return record


def remove_leftovers(folder: Path, log: Callable[[str], None]) -> None:
    """Delete the half-written files of a killed process, and empty stack files."""
    removed = remove_temporaries(folder)
    for file in folder.glob("stalled_*.txt"):
        if file.is_file() and not file.stat().st_size:
            file.unlink()
            removed.append(file.name)
    if removed:
        log(f"{folder}: removed half-written files of a killed process ({', '.join(sorted(removed))})")


def tidy(folder: Path) -> None:
    """Call `clean_finished` under the folder's lock; do nothing if another process has it."""
    with suppress(ConfigError, OSError), lock_folder(folder):
        clean_finished(folder)


def clean_finished(folder: Path) -> None:
    """Delete the remains of a run that was killed after its result. Needs the folder's lock."""
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


def _compare_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], log: Callable[[str], None]) -> None:
    different = run_record.differences(before, now)
    other = [f"{name}: {change}" for name, change in different.items() if not run_record.may_change(name)]
    if other:
        remedy = f"give the same command as before, or resume={folder} to use the run's own"
        if os.environ.get(FLAG) != AUTO:
            remedy = f"put it back in {folder / FILE}"
        raise ConfigError(
            f"{folder} began with other settings ({'; '.join(other)}): {remedy}; for another run choose another folder (hydra.run.dir)"
        )
    for name, change in different.items():
        log(f"{folder} began with another setting: {name}: {change}")


def _inputs_accepted(folder: Path, inputs: Mapping[str, str], accept: bool, log: Callable[[str], None]) -> bool:
    """Return whether input files changed and the change is accepted. Raises DataError if it isn't."""
    changes = changed_inputs(inputs, folder)
    if changes and not accept:
        raise DataError(
            f"{folder}: input files changed since the run started: {'; '.join(changes)}; restore them, or continue all the same with "
            "checkpoint.accept_changed_inputs=true"
        )
    for change in changes:
        log(f"{change}, and the run continues with it (checkpoint.accept_changed_inputs)")
    return bool(changes)


def check_result(folder: Path) -> None:
    """Reject the folder of a finished run. Raises ConfigError."""
    if (folder / RESULT).is_file():
        raise ConfigError(
            f"{folder} has a finished run, whose files are not overwritten: choose another folder (hydra.run.dir), or leave "
            "hydra.run.dir out for a new one"
        )


def is_resumed(folder: Path) -> bool:
    """Return whether the command resumes the run of this folder."""
    return os.environ.get(FLAG) in (AUTO, str(folder.resolve()))


def check_folder(folder: Path) -> None:
    """Reject a new run in the folder of another one, finished or stopped.

    Raises:
        ConfigError: the folder has a result or checkpoints, and the command doesn't resume that run.
    """
    if is_resumed(folder):
        return
    check_result(folder)
    if (folder / CHECKPOINTS).is_dir():
        raise ConfigError(
            f"{folder} has the checkpoints of a stopped run: continue it by resume={folder}, choose another folder "
            f"(hydra.run.dir), or delete {folder / CHECKPOINTS}"
        )


def _resume_folder(args: Sequence[str]) -> Path | None:
    """The folder of `resume=`, with Hydra's quotes removed and `~` expanded; None without `resume=`."""
    paths = [argument.removeprefix("resume=") for argument in args if argument.startswith("resume=")]
    if not paths:
        return None
    name = paths[-1]
    bare = name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name
    candidates = [Path(name), Path(name).expanduser(), Path(bare), Path(bare).expanduser()]
    return next((path for path in candidates if path.is_dir()), candidates[0])
