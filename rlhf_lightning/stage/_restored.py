"""Trainings that an earlier attempt of a run finished, read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.rounds.ledger import Entry, Ledger
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._report import set_policy_card
from rlhf_lightning.training.trainer import process_count

if TYPE_CHECKING:
    from rlhf_lightning.model.language_model import LanguageModel


def training_record(run: Run, name: str) -> Entry:
    """The ending and the speed of a training, for the ledger."""
    ending, best = run.endings.get(name), run.best.get(name)
    return {"training": name, "ending": None if ending is None else ending.fields(), "best": best, "speed": run.speeds.get(name)}


def saved_training(run: Run, ledger: Ledger, number: int, step: str) -> Entry | None:
    """The entry of a finished training, recorded as this run's; None for one that is still to be done.

    Several processes resume from the checkpoint of the finished training instead: it starts the processes.
    """
    from rlhf_lightning.training.ending import Ending

    entry = ledger.entry(number, step)
    if entry is None or process_count(run.config.trainer) > 1:
        return None
    name = str(entry["training"])
    run.learning_rates.pop(name.split()[0], None)
    if entry["ending"] is not None:
        run.endings[name] = Ending(**entry["ending"])
        run.log(f"{name}: finished by an earlier attempt, and read from {run.folder}")
    if entry["best"] is not None:
        run.best[name] = entry["best"]
    if entry["speed"] is not None:
        run.speeds[name] = entry["speed"]
    return entry


def restore_card(run: Run, folder: Path, policy: LanguageModel) -> None:
    """Make the run write its metrics into the card of a policy that was trained earlier."""
    run.model_folder = folder
    set_policy_card(run, policy)
