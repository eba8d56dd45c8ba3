"""`rlhf-lightning rounds FOLDER`: list the rounds of a run, redo a round, or drop one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rounds import ledger

USAGE = "write `rlhf-lightning rounds FOLDER`, and after it redo=NUMBER or drop=NUMBER to change a run: redo=2"
HEADS = ("round", "state", "responses", "judgements", "target", "kl", "people_seconds", "cost", "seconds")


def rounds(args: Sequence[str]) -> None:
    """Print the ledger of a run of stage=rounds, after a change if there is one. Raises UserError."""
    if not 1 <= len(args) <= 2 or "=" in args[0]:
        raise ConfigError(USAGE)
    folder = Path(args[0])
    if not (folder / ledger.FILE).is_file():
        raise ConfigError(f"{folder} has no {ledger.FILE}: name the folder of a run of stage=rounds")
    for change in args[1:]:
        print(safe_message(change_ledger(folder, change)))
    print(safe_message(table(ledger.summary(ledger.read(folder)))))


def change_ledger(folder: Path, change: str) -> str:
    """Redo or drop a round; returns what the user is to know.

    Raises:
        ConfigError: another change, or no such round.
    """
    name, _, text = change.partition("=")
    if name not in ("redo", "drop") or not text.isdecimal():
        raise ConfigError(f"{change}: {USAGE}")
    number = int(text)
    forgotten = ledger.redo(folder, number) if name == "redo" else ledger.drop(folder, number)
    later = [n for n in forgotten if n > number]
    lines = [f"round {number} is to be done again" if name == "redo" else f"round {number} is dropped: its feedback is left out"]
    if later:
        lines.append(f"the rounds after it started from its policy, and are to be done again: {', '.join(map(str, later))}")
    return "\n".join([*lines, f"continue with `python train.py resume={folder}`"])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Align the rows of a ledger under their heads."""
    cells = [[head.replace("_", " ") for head in HEADS], *([_cell(row.get(head)) for head in HEADS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(value: object) -> str:
    if isinstance(value, Mapping):  # an interval
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
