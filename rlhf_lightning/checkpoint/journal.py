"""An append-only file of answers by key, complete up to the last line when the process dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import DataError


class Journal:
    """JSON Lines of (key, value); several processes may append to one file.

    A line that a killed process left unfinished is ended and skipped; its question is asked again.

    Raises:
        DataError: a file of something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, Any] = dict(_entries(path))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def add(self, key: str, value: Any) -> None:
        """Append a value, written before this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write(b"\n" * torn + json.dumps({"key": key, "value": value}).encode() + b"\n")
        self._values[key] = value


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                yield entry["key"], entry["value"]
            except (ValueError, KeyError, TypeError) as cause:
                if number == 1 and line.endswith(b"\n"):
                    raise DataError(f"{path}:1 is no line of a journal of answers: name another file, which is made") from cause
