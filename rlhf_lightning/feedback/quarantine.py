"""The quarantine: a JSONL file of bad lines with their reasons."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import BadLine


@contextlib.contextmanager
def quarantine_writer(target: Path | None) -> Iterator[Callable[[BadLine], None]]:
    """Yield a function that writes bad lines; without a target it drops them.

    The file appears atomically when the block ends without an error and had bad lines.
    """
    if target is None:
        yield lambda line: None
        return
    temporary = temporary_sibling(target)
    with _as_data_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("w", encoding="utf-8")

    def write(line: BadLine) -> None:
        entry = {"origin": line.origin, "reason": line.reason, "raw": line.raw.decode("utf-8", "backslashreplace")}
        with _as_data_error(target):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    try:
        yield write
        with _as_data_error(target):
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            file.close()
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_data_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"can't set bad lines aside in {target}: {error.strerror or error}") from error
