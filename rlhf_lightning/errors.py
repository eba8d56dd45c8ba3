"""Errors that the user can fix: the command line prints their message without a traceback."""

from __future__ import annotations

import errno
import importlib
from typing import Any

FILE_ERRORS = {
    errno.EACCES: "give this user the right to it, or name another",
    errno.EPERM: "give this user the right to it, or name another",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "the machine has no file handles to spare: end other programs",
    errno.EIO: "the disk, or the connection to it, fails: look at the machine's log",
    errno.ESTALE: "the network disk has lost it: start again",
    errno.ENXIO: "it is a socket or FIFO that nobody serves: name a regular file",
    errno.ENODEV: "name a regular file",
}
"""The remedy for an error of the file system, by its number."""


class UserError(Exception):
    """Invalid input of the user; the message names file, line or key, the cause and the remedy."""


class ConfigError(UserError):
    """An invalid setting or combination of settings."""


class RegistryError(UserError):
    """A component that can't be registered."""


class DataError(UserError):
    """A file or record that can't be read."""


class OverlongPrompt(DataError):
    """A prompt that leaves no positions of the model for its response."""


def summarize_exception(error: BaseException) -> str:
    """The exception's type and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


FAILED_READS = (errno.EIO, errno.ESTALE, errno.EISDIR)
"""Errors of reading an open file: they carry no file name."""


def file_error(error: BaseException) -> UserError | None:
    """The UserError for an OSError of FILE_ERRORS; None for another error."""
    if not isinstance(error, OSError) or error.errno not in FILE_ERRORS or (error.filename is None and error.errno not in FAILED_READS):
        return None
    file = "" if error.filename is None else f"{error.filename}: "
    return UserError(f"{file}{error.strerror}; {FILE_ERRORS[error.errno]}")


def import_extra(module: str, setting: str, extra: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ConfigError: naming the setting that needs the package, and its extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        raise ConfigError(f"{setting} needs more packages: pip install 'rlhf-lightning[{extra}]' ({cause})") from cause
