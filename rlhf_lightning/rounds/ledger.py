"""The ledger of stage=rounds: one line of JSON for each finished step of each round.

A step's files are written first and its line last, by an atomic replacement of the ledger: a run that is killed at any moment finds each
step finished or not begun.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.runtime.resume import CHECKPOINTS, RESULT
from rlhf_lightning.training.distributed import global_rank

FILE = "rounds.jsonl"
START = 0
"""The number of the policy before any feedback."""
STEPS = ("sampled", "selected", "judged", "reward", "policy", "compared", "evaluated")
"""The steps of a round, in their order."""
DROPPED, ATTEMPT = "dropped", "attempt"
"""Entries of `drop` and `redo`."""
POLL = 0.2
"""Seconds between two looks of a process that waits for rank 0."""
Entry = dict[str, Any]


class Ledger:
    """The finished steps of a run's rounds. Rank 0 writes it; the other ranks wait for its lines.

    Attributes:
        entries: by round and step.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = read(folder)
        self._start = time.perf_counter()

    def entry(self, number: int, step: str) -> Entry | None:
        """The entry of a finished step; None before it is finished."""
        return self.entries.get((number, step))

    def do(self, number: int, step: str, compute: Callable[[], Mapping[str, Any]]) -> Entry:
        """The entry of a step, which is computed by rank 0 alone unless it is finished.

        Args:
            compute: writes the step's files and returns the content of its entry.
        """
        if self.entry(number, step) is None and global_rank() == 0:
            self.commit(number, step, **compute())
        return self.wait(number, step)

    def commit(self, number: int, step: str, **content: Any) -> None:
        """Add the entry of a finished step, with the seconds since the one before it; on rank 0 only."""
        if global_rank() == 0:
            seconds, self._start = time.perf_counter() - self._start, time.perf_counter()
            self.entries[number, step] = {"round": number, "step": step, **content, "seconds": round(seconds, 3)}
            write(self.folder, self.entries)

    def wait(self, number: int, step: str) -> Entry:
        """The entry of a step as soon as rank 0 has finished it."""
        while (entry := self.entry(number, step)) is None:
            time.sleep(POLL)
            self.entries = read(self.folder)
        return entry

    def attempt(self, number: int) -> int:
        """1 for a round as it was first, 2 once it was redone, and so on."""
        entry = self.entry(number, ATTEMPT)
        return 1 if entry is None else int(entry["number"])

    @property
    def dropped_rounds(self) -> list[int]:
        return sorted(number for number, step in self.entries if step == DROPPED)

    def numbers(self, count: int) -> Iterator[int]:
        """The numbers of `count` rounds, without the dropped ones."""
        dropped = set(self.dropped_rounds)
        return itertools.islice((number for number in itertools.count(1) if number not in dropped), count)


def read(folder: Path) -> dict[tuple[int, str], Entry]:
    """The entries of a folder's ledger; none without one.

    Raises:
        DataError: a line that is no entry.
    """
    path = folder / FILE
    entries: dict[tuple[int, str], Entry] = {}
    if not path.is_file():
        return entries
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries[int(entry["round"]), str(entry["step"])] = entry
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(
                f"{path}:{number}: no entry of a ledger ({type(cause).__name__}: {cause}); expected an object with `round` and `step`: "
                "restore the file from a copy, or delete this line and the later ones, to do their steps again"
            ) from cause
    return entries


def write(folder: Path, entries: Mapping[tuple[int, str], Entry]) -> None:
    """Replace a folder's ledger atomically."""
    write_atomic(folder / FILE, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries.values()))


def redo(folder: Path, number: int) -> list[int]:
    """Forget a round and those after it, for a resumed run to do anew on new samples.

    Returns their numbers.
    """
    return _forget(folder, number, drops=False)


def drop(folder: Path, number: int) -> list[int]:
    """Leave a round's feedback out for good, and forget the rounds after it.

    Returns the forgotten rounds.
    """
    return _forget(folder, number, drops=True)


def _forget(folder: Path, number: int, drops: bool) -> list[int]:
    """Remove the entries, models and checkpoints of a round and of those after it.

    Their feedback is moved to round_N_before_K; a dropped round's folder stays.

    Raises:
        ConfigError: no such round, or another process is using the folder.
    """
    with lock_folder(folder):
        entries = read(folder)
        numbers = sorted({n for n, _ in entries if n > START})
        if number not in numbers:
            listed = ", ".join(map(str, numbers)) or "none"
            raise ConfigError(f"{folder / FILE} has no round {number}; there are: {listed}")
        forgotten = [n for n in numbers if n >= number]
        attempts = {n: 1 if (n, ATTEMPT) not in entries else int(entries[n, ATTEMPT]["number"]) for n in forgotten}
        remaining = {key: entry for key, entry in entries.items() if key[0] < number}
        for n in forgotten:
            remaining[n, ATTEMPT] = {"round": n, "step": ATTEMPT, "number": attempts[n] + 1}
        if drops:
            remaining[number, DROPPED] = {"round": number, "step": DROPPED}
        # The ledger first: files without an entry are written again.
        write(folder, remaining)
        (folder / RESULT).unlink(missing_ok=True)
        for n in forgotten:
            _remove_files(folder, n, keeps_folder=drops and n == number)
    return forgotten


def _remove_files(folder: Path, number: int, keeps_folder: bool) -> None:
    parts = [*(folder / CHECKPOINTS).glob(f"*_{number}"), *(folder / CHECKPOINTS).glob(f"*_{number}_*")]
    parts += [*(folder / "logs").glob(f"* {number}"), *(folder / "logs").glob(f"* {number} *")]
    for path in parts:
        shutil.rmtree(path)
    target = folder / f"round_{number}"
    if target.is_dir() and not keeps_folder:
        k = next(k for k in itertools.count(1) if not (folder / f"round_{number}_before_{k}").exists())
        target.rename(folder / f"round_{number}_before_{k}")


def summary(entries: Mapping[tuple[int, str], Entry]) -> list[Entry]:
    """One row for each round: its last step, counts, metrics, seconds and cost."""
    rows = []
    for number in sorted({number for number, _ in entries}):
        steps = {step: entry for (n, step), entry in entries.items() if n == number}
        finished = [step for step in ("sft", *STEPS) if step in steps]
        row: Entry = {"round": number, "state": DROPPED if DROPPED in steps else finished[-1] if finished else "to be redone"}
        row["seconds"] = sum(entry.get("seconds", 0.0) for entry in steps.values())
        for step, name in (("sampled", "responses"), ("judged", "judgements"), ("judged", "people_seconds"), ("judged", "cost")):
            row[name] = steps.get(step, {}).get(name)
        evaluated = steps.get("evaluated", {})
        row |= {name: evaluated.get(name) for name in ("target", "kl")}
        rows.append(row)
    return rows
