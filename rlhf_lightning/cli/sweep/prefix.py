"""The number of its job before each line of output, where the jobs of a sweep run at the same time."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

SERIAL = "BasicLauncher"
"""Hydra's launcher that runs one job after the other."""


class PrefixedStream(io.TextIOBase):
    """Writes complete lines with a prefix, so that those of several processes don't mix."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self.stream, self.prefix = stream, prefix
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            self.stream.write("".join(f"{self.prefix}{line}\n" for line in lines))
            self.stream.flush()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def finish(self) -> None:
        """Write the last line if it has no end."""
        if self._line:
            self.write("\n")

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


@contextmanager
def prefixed_output(node: Any) -> Iterator[None]:
    """Begin the lines of a job of a parallel sweep with its number.

    Args:
        node: the job's `hydra` node.
    """
    if str(node.launcher.get("_target_", SERIAL)).endswith(SERIAL):
        yield
        return
    streams = [PrefixedStream(stream, f"[job {node.job.num}] ") for stream in (sys.stdout, sys.stderr)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            yield
        finally:
            for stream in streams:
                stream.finish()
