"""Errors that a user can mend. The command line prints their message alone; anything else keeps its traceback."""

from __future__ import annotations

import errno

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
    errno.ESTALE: "the network's disk has lost it: start again",
    errno.ENXIO: "it is a socket or FIFO that nobody serves: name a regular file",
    errno.ENODEV: "name a regular file",
}
"""What to do at an error of the file system, by its number."""


class UserError(Exception):
    """Something the user gave can't be used; the message names file, line or key, what was expected and how to fix it."""


class ConfigError(UserError):
    """A setting or a combination of settings that can't be run."""


class RegistryError(UserError):
    """A component that can't be registered."""


class DataError(UserError):
    """A file or record that can't be read."""


class OverlongPrompt(DataError):
    """A prompt that leaves no room for its response in the model's positions."""


def summarize_exception(error: BaseException) -> str:
    """The exception's type and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


FAILED_READS = (errno.EIO, errno.ESTALE, errno.EISDIR)
"""Those of reading an open file, which name none."""


def file_error(error: BaseException) -> UserError | None:
    """A message for an error of FILE_ERRORS, with the file where it names one; None for another."""
    if not isinstance(error, OSError) or error.errno not in FILE_ERRORS or (error.filename is None and error.errno not in FAILED_READS):
        return None
    file = "" if error.filename is None else f"{error.filename}: "
    return UserError(f"{file}{error.strerror}; {FILE_ERRORS[error.errno]}")
