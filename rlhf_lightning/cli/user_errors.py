"""Turn exceptions into messages and exit codes, for the command, its callbacks and its jobs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from rlhf_lightning.checkpoint.durable import disk_error
from rlhf_lightning.cli.error_messages import explain_hydra_error
from rlhf_lightning.cli.sweep.jobs import ERROR_FILE
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import safe_message
from rlhf_lightning.config.presets import list_presets
from rlhf_lightning.errors import UserError, file_error
from rlhf_lightning.registry import components

USER_ERRORS = (UserError, HydraException, OmegaConfBaseException, MarkedYAMLError)
HYDRA_VALUE_ERRORS = ("Config group override must be", "Only one of --run", "The --resolve flag")
"""Beginnings of the plain ValueErrors that Hydra raises for `advantage=null`, `advantage=3` and flags that exclude each other."""


class UserErrorExit(SystemExit):
    """Exit code 2 for an error the user can fix; unlike an Exception, Hydra passes it on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(2)
        self.error = error


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Print an error that the user can fix as one line and exit with code 2; raise any other."""
    try:
        with raise_as_exit():
            yield
    except UserErrorExit as stop:
        print_error(stop.error)
        raise


@contextmanager
def raise_as_exit(folder: Path | None = None) -> Iterator[None]:
    """Raise UserErrorExit for an error that the user can fix, so that it passes through Hydra unchanged.

    Args:
        folder: the run's, named in the remedy for a full disk.
    """
    try:
        yield
    except Exception as cause:
        error = translate(cause, folder)
        if not is_user_error(error):
            raise
        raise UserErrorExit(error) from cause


def record_failure(cause: Exception, folder: Path) -> None:
    """Print the error of a sweep's job and write it into the job's folder."""
    error = translate(cause, folder)
    if is_user_error(error):
        print_error(error)
        text = format_error(error)
    else:
        print_traceback(error)
        text = f"{type(error).__name__}: {error}"
    write_atomic(folder / ERROR_FILE, safe_message(text))


def translate(error: Exception, folder: Path | None = None) -> Exception:
    """The UserError for an error of the disk, of a file or of a plugin; any other error as it is."""
    return disk_error(error, folder) or file_error(error) or plugin_error(error) or error


def plugin_error(error: Exception) -> UserError | None:
    """The UserError for an error in a component from outside the package; None for another one.

    Its message names the option, the innermost line of its file, and the frames from there.
    """
    if is_user_error(error):
        return None
    plugins = {component.file: component for component in components() if not component.target.__module__.startswith("rlhf_lightning.")}
    frames = traceback.extract_tb(error.__traceback__)
    inside = [i for i, frame in enumerate(frames) if frame.filename in plugins]
    if not inside:
        return None
    frame, component = frames[inside[-1]], plugins[frames[inside[-1]].filename]
    listed = "".join(traceback.format_list(frames[inside[0] :])).rstrip()
    origin = f"{frame.filename}:{frame.lineno}, in {frame.name}"
    return UserError(f"{component.group}={component.name} raised {type(error).__name__}: {error} ({origin})\n{listed}")


def is_user_error(error: BaseException) -> bool:
    """Return whether the user can fix it: our own errors, Hydra's while it composes, and YAML's."""
    return isinstance(error, USER_ERRORS) or (isinstance(error, ValueError) and str(error).startswith(HYDRA_VALUE_ERRORS))


def format_error(error: BaseException) -> str:
    """The message of an error that the user can fix; Hydra's errors are explained."""
    return str(error) if isinstance(error, UserError) else explain_hydra_error(error, sys.argv[1:], list_presets())


def print_error(error: BaseException) -> None:
    """Print the message of an error that the user can fix on stderr, without secrets."""
    print(f"error: {safe_message(format_error(error))}", file=sys.stderr)


def print_traceback(error: BaseException) -> None:
    """Print an error with its traceback on stderr, without secrets and control characters."""
    print(safe_message("".join(traceback.format_exception(error))), file=sys.stderr)
