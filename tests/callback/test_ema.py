"""The average of the weights: its closed form, evaluations, the result, exact resume; by SFT and by PPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from rlhf_lightning.callback.ema import ema
from rlhf_lightning.checkpoint.fit import fit
from rlhf_lightning.training.datamodule import ShardedData
from rlhf_lightning.training.distributed import shared_loader
from rlhf_lightning.training.settings import LearningRates, SupervisedSettings
from rlhf_lightning.training.supervised import LossSums, SupervisedModule


class Settings(SupervisedSettings):
    default_rates = LearningRates(0.1, 0.1)


class Regression(SupervisedModule):
    """The smallest training: y = w x, six steps over two epochs."""

    loss_name, trained = "loss", "linear"

    def __init__(self) -> None:
        super().__init__(Settings(epochs=2, batch_size=2), 6)
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)
        self.weights: list[torch.Tensor] = []

    def loss_sums(self, batch: Any) -> LossSums:
        if not self.weights or not torch.equal(self.weights[-1], self.linear.weight):
            self.weights.append(self.linear.weight.detach().clone())
        loss = (self.linear(batch) - 1.0).square()
        return LossSums(loss.sum(), torch.tensor(float(len(loss))), {})


def make_loader(rank: int, world: int) -> DataLoader[Any]:
    rows = [torch.tensor([1.0, float(i), -0.5 * i]) for i in range(6)]
    return shared_loader(rows, 2, (0, rank, world), torch.stack, lambda batch: batch)


def train(folder: Path, *callbacks: L.Callback) -> Regression:
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, callbacks=list(callbacks),
    )  # fmt: skip
    module = Regression()
    fit(trainer, module, ShardedData(make_loader), folder=folder, every=1, keep=99)
    return module


class Stop(L.Callback):
    """Ends the training after some steps, as a crash does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.step:
            raise KeyError("crash")


class Evaluated(L.Callback):
    """The weights that an evaluation after the second step sees."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 != 2:
            return
        before = pl_module.linear.weight.detach().clone()
        (average,) = [callback for callback in trainer.callbacks if hasattr(callback, "average")]
        average.on_validation_epoch_start(trainer, pl_module)
        self.weight = pl_module.linear.weight.detach().clone()
        average.on_validation_epoch_end(trainer, pl_module)
        assert torch.equal(pl_module.linear.weight, before)


def test_the_result_and_evaluations_have_the_average_and_the_training_has_not(tmp_path):
    plain, evaluated = train(tmp_path / "plain"), Evaluated()
    averaged = train(tmp_path / "averaged", ema(decay=0.5), evaluated)
    last = plain.linear.weight.detach().clone()
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, averaged.weights, strict=True)), "the training itself is another one"
    averages = [plain.weights[0]]
    for weight in [*plain.weights[1:], last]:
        averages.append(averages[-1] + 0.5 * (weight - averages[-1]))
    assert torch.allclose(evaluated.weight, averages[2], atol=1e-7)
    assert torch.allclose(averaged.linear.weight, averages[6], atol=1e-7)
    assert not torch.equal(averaged.linear.weight, last)


@pytest.mark.parametrize("step", [2, 4])
def test_it_resumes_exactly(tmp_path, step):
    whole = train(tmp_path / "whole", ema(decay=0.7, every=2))
    with pytest.raises(KeyError):
        train(tmp_path / "stopped", ema(decay=0.7, every=2), Stop(step))
    for _ in range(2):  # the second time the training is already complete
        resumed = train(tmp_path / "stopped", ema(decay=0.7, every=2))
        assert torch.equal(resumed.linear.weight, whole.linear.weight)
        assert resumed.history == whole.history
