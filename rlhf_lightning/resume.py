"""`resume=RUN`: a run that was stopped goes on, from the configuration that it left in its folder.

Everything a run does follows from its configuration and its seed, but for its trainings; a resumed run does it all again, and each training
goes on from its newest whole checkpoint, or is over at once where it was. It then leaves what it would have left without the stop.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.saved_config import FILE

RESULT = "result.json"
CHECKPOINTS = "checkpoints"
FLAG = "RLHF_LIGHTNING_RESUMES"
"""Names the folder to the processes that Lightning starts, whose commands are made of the first one's."""
MAY_CHANGE = ("trainer.", "logger.", "logger=", "checkpoint.", "trainer=")
"""What a resumed run may be told anew: how it is run, not what is learned."""


def finished(words: Sequence[str]) -> Path | None:
    """The folder that `resume=RUN` names, where that run is already complete."""
    folder = _named(words)
    return folder if folder is not None and (folder / RESULT).is_file() else None


def spelled_out(words: Sequence[str]) -> list[str]:
    """The command of a resumed run, as Hydra takes it; any other command as it is.

    Raises:
        ConfigError: no such run, or overrides that would make another run of it.
    """
    folder = _named(words)
    if folder is None:
        return list(words)
    if not (folder / FILE).is_file():
        raise ConfigError(f"resume={folder}: there is no {FILE}, so this is not the folder of a run; name the folder that a run printed")
    others = [word for word in words if not word.startswith("resume=")]
    changed = [word for word in others if not word.lstrip("+~").startswith(MAY_CHANGE)]
    if changed:
        raise ConfigError(
            f"resume={folder} goes on with the run's own configuration, and {changed[0]} would make another run of it: leave it out, or "
            f"begin anew with `{changed[0]} --config-path {folder}`; a resumed run may be told trainer, logger and checkpoint settings"
        )
    os.environ[FLAG] = str(folder.resolve())
    return [*others, f"hydra.run.dir={folder.resolve()}", "--config-path", str(folder.resolve())]


def check_folder(folder: Path) -> None:
    """Refuse to begin anew where another run was stopped.

    Raises:
        ConfigError: the folder holds checkpoints, and the command doesn't resume them.
    """
    if (folder / CHECKPOINTS).is_dir() and os.environ.get(FLAG) != str(folder.resolve()):
        raise ConfigError(
            f"{folder} holds the checkpoints of a run that was stopped: go on with it by resume={folder}, choose another folder "
            f"(hydra.run.dir), or delete {folder / CHECKPOINTS}"
        )


def _named(words: Sequence[str]) -> Path | None:
    paths = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    return Path(paths[-1]) if paths else None
