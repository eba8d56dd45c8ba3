"""The seconds of each stage of a run, summed over the attempts of a resumed run."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf_lightning.config.atomic_write import temporary_sibling

FILE = "seconds.json"
"""The file with the seconds, in the run's folder until the run is finished."""
PERIOD = 1.0
"""Seconds between two writes: the most that a killed attempt loses."""


class Stopwatch:
    """Measures stages, and writes the file from which the next attempt continues.

    A stage within another one pauses it: each second counts once.

    Attributes:
        seconds: of each stage, without what the running one has spent since its start or its last pause.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._start = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's."""
        self._count()
        self._running.append(stage)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def _count(self) -> None:
        """Add the seconds since the last count to the innermost running stage."""
        seconds, self._start = self.so_far(), time.perf_counter()
        self.seconds = seconds

    def so_far(self) -> dict[str, float]:
        """The seconds of each stage, running stages included."""
        seconds, start = dict(self.seconds), self._start
        for stage in self._running[-1:]:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        return seconds

    @contextmanager
    def record(self, folder: Path) -> Iterator[None]:
        """Continue from the file of earlier attempts, and write it during the block and at its end."""
        self.seconds = read_seconds(folder)
        over = threading.Event()

        def write_until_over() -> None:
            while not over.wait(PERIOD):
                self.write(folder)

        thread = threading.Thread(target=write_until_over, daemon=True, name="stopwatch")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the file; a disk error is ignored."""
        temporary = temporary_sibling(folder / FILE)
        with suppress(OSError):
            try:
                temporary.write_text(json.dumps(self.so_far()), encoding="utf-8")
                os.replace(temporary, folder / FILE)
            finally:
                temporary.unlink(missing_ok=True)


def read_seconds(folder: Path) -> dict[str, float]:
    """The seconds of earlier attempts by stage; empty without any, or if the file can't be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(stage): float(seconds) for stage, seconds in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
