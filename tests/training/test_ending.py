"""Why a training ended, as its checkpoint, its log and result.json have it."""

from __future__ import annotations

import json

import pytest
from lightning.pytorch.callbacks import EarlyStopping, Timer

from rlhf_lightning.checkpoint.fit import fit
from rlhf_lightning.training.ending import Ending
from tests.checkpoint import trainings


class Stops(trainings.L.Callback):
    def on_train_batch_end(self, trainer, *_) -> None:
        trainer.should_stop = True


def ending_of(folder, *callbacks) -> Ending:
    module, data, epochs = trainings.KINDS["sft"]()
    return fit(trainings.trainer_of(epochs, *callbacks), module, data, folder=folder, every=9, log=lambda text: None)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (lambda: [], Ending("finished", 6, 6)),
        (lambda: [Timer(duration={"milliseconds": 1})], Ending("max_time", 1, 6)),
        (lambda: [EarlyStopping("sft/loss", strict=True, stopping_threshold=99.0), Logs()], Ending("early_stopping", 3, 6)),
        (lambda: [Stops()], Ending("callback", 1, 6)),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_the_reason_is_what_stopped_it_and_a_resumed_training_has_it_too(make, ending, tmp_path):
    assert ending_of(tmp_path, *make()) == ending
    assert ending_of(tmp_path) == ending


class Logs(trainings.L.Callback):
    """Lightning's metrics of the module's history, which a command's own callbacks log."""

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        pl_module.log("sft/loss", pl_module.history[-1]["sft/loss"], logger=False, on_step=True, on_epoch=False)


def test_a_command_that_ends_early_says_so(command, world):
    outcome = command(*world.sft("+trainer.max_time=00:00:00:01", "sft.epochs=5000"))
    assert outcome.code == 0, outcome.error
    result = outcome.result()
    assert result["ended"] == "max_time"
    training = result["trainings"]["sft"]
    assert training["reason"] == "max_time"
    assert training["steps"] < training["planned"]
    sentence = f"by max_time, after {training['steps']} of {training['planned']} steps"
    assert sentence in outcome.out
    assert any(sentence in note for note in json.loads((outcome.folder / "report.json").read_text())["notes"])
