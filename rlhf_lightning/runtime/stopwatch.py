"""Seconds of each stage of a run, summed over all attempts of one that was stopped and resumed."""

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
"""In the run's folder until the run is finished."""
PERIOD = 1.0
"""Seconds between two writes: what a killed attempt loses at most."""


class Stopwatch:
    """Measures stages, and keeps the file from which the next attempt goes on counting.

    Attributes:
        seconds: by stage, of those that have ended.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._starts: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the block's seconds to the stage's."""
        start = self._starts[stage] = time.perf_counter()
        try:
            yield
        finally:
            self._starts.pop(stage, None)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def so_far(self) -> dict[str, float]:
        """The seconds by stage, with those of stages that haven't ended."""
        seconds, now = dict(self.seconds), time.perf_counter()
        for stage, start in list(self._starts.items()):
            seconds[stage] = seconds.get(stage, 0.0) + now - start
        return seconds

    @contextmanager
    def record(self, folder: Path) -> Iterator[None]:
        """Go on from what earlier attempts left in the folder, and write there during the block and at its end."""
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
        """Write the file; a disk that doesn't take it costs the count alone."""
        temporary = temporary_sibling(folder / FILE)
        with suppress(OSError):
            try:
                temporary.write_text(json.dumps(self.so_far()), encoding="utf-8")
                os.replace(temporary, folder / FILE)
            finally:
                temporary.unlink(missing_ok=True)


def read_seconds(folder: Path) -> dict[str, float]:
    """What earlier attempts of the run took; nothing where there were none, or the file can't be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(stage): float(seconds) for stage, seconds in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
