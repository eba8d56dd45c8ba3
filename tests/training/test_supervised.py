"""Micro-batches take the gradient of the whole batch, on one process and on two."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking, Thumbs
from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.preference.examples import TextTable, compared_examples, preference_loader, thumbed_examples
from rlhf_lightning.preference.loss.dpo import DPO
from rlhf_lightning.preference.loss.kto import KTO
from rlhf_lightning.preference.module import PreferenceModule
from rlhf_lightning.preference.settings import PreferenceSettings
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.module import RewardModule, feedback_loader
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.settings import RewardSettings
from rlhf_lightning.sft.module import SFTModule, demonstration_loader
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.training.datamodule import ShardedData
from rlhf_lightning.training.supervised import SupervisedModule
from tests.fork_server import run

KINDS = ["sft", "reward", "dpo", "kto"]
THINGS = ["lamp", "fan", "kettle", "tent", "desk", "rug", "pen"]
SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 5, "learning_rate": 1e-30}
"""Seven rows: a batch of five and one of two. The weights stay, so that the steps' gradients can be compared."""


def judgements(thumbs: bool) -> Any:
    records = []
    for number, thing in enumerate(THINGS):
        good, bad = f" it is{' very' * number} good.", " bad, bad"
        if thumbs:
            records.append(Feedback(prompt=f"The {thing}:", responses=(good,), judgement=Thumbs(up=number % 2 == 0)))
        else:
            records.append(Feedback(prompt=f"The {thing}:", responses=(good, bad), judgement=Ranking(ranks=(0, 1)), weight=1.0 + number))
    return standardise(records)


def training_of(kind: str, micro: int | None) -> tuple[SupervisedModule, ShardedData]:
    torch.manual_seed(0)
    language_model = tiny(["The lamp: it is good."], family="gpt2", layers=1, width=16, heads=2, vocabulary=260, positions=64)
    language_model.model.eval()
    if kind == "sft":
        sft, rows = SFTSettings(**SETTINGS), [Demonstration(f"The {thing}", " is good" * (1 + i)) for i, thing in enumerate(THINGS)]
        data = ShardedData(lambda rank, world: demonstration_loader(rows, language_model, sft, 0, rank, world, micro)[0])
        return SFTModule(language_model, sft, 10), data
    judged = judgements(kind == "kto")
    if kind == "reward":
        model = RewardModel(ComposedScore(language_model.trunk, last, LinearHead(16)), language_model.tokenizer, 64).eval()
        data = ShardedData(lambda rank, world: feedback_loader(judged, model, 5, 0, rank, world, (), micro))
        return RewardModule(model, [BradleyTerry()], RewardSettings(**SETTINGS), 10), data
    table = TextTable(language_model.tokenizer, 64)
    examples = thumbed_examples(judged, table, False) if kind == "kto" else compared_examples(judged, table)
    data = ShardedData(lambda rank, world: preference_loader(examples, table, 5, 0, rank, world, micro))
    loss: Any = KTO() if kind == "kto" else DPO()
    return PreferenceModule(language_model, loss, PreferenceSettings(**SETTINGS), 10, table, np.arange(len(table))), data


class Gradients(L.Callback):
    """The gradient of each step, after the average over processes."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in pl_module.parameters() if p.requires_grad]
        self.steps.append(torch.cat([gradient.flatten() for gradient in gradients]))


def train(kind: str, micro: int | None, **trainer: Any) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """[steps, parameters] the gradients, and the history."""
    warnings.filterwarnings("ignore")
    module, data = training_of(kind, micro)
    gradients = Gradients()
    L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[gradients], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **{"devices": 1, **trainer},
    ).fit(module, data)  # fmt: skip
    return torch.stack(gradients.steps), module.history


@pytest.mark.parametrize("micro", [1, 2, 3, 99])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_whole_batch(kind, micro):
    expected, history = train(kind, None)
    gradients, micro_history = train(kind, micro)
    assert expected.abs().max() > 1e-3
    assert (gradients - expected).abs().max() < 1e-6 * max(1.0, expected.abs().max().item())
    for step, micro_step in zip(history, micro_history, strict=True):
        assert micro_step == pytest.approx(step, rel=1e-5, abs=1e-6)


def test_batches_are_lists_of_micro_batches_as_many_on_each_process():
    for world in (1, 2, 3):
        for kind in KINDS:
            loaders = [training_of(kind, 1)[1].loader(rank, world) for rank in range(world)]
            for batches in zip(*loaders, strict=True):
                assert len({len(micro_batches) for micro_batches in batches}) == 1


def test_two_processes_take_it_too(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone", __file__]
    ended = run([*command, str(tmp_path)], timeout=300, spares=2)
    assert ended.returncode == 0, ended.stderr
    for kind in KINDS:
        expected, history = train(kind, None)
        gradients, micro_history = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
        assert (gradients - expected).abs().max() < 1e-6 * max(1.0, expected.abs().max().item()), kind
        loss = next(name for name in history[0] if name.endswith("loss"))
        assert [step[loss] for step in micro_history] == pytest.approx([step[loss] for step in history], rel=1e-5)


if __name__ == "__main__":
    for name in KINDS:
        outcome = train(name, 1, devices=2, strategy="ddp")
        if os.environ["RANK"] == "0":
            torch.save(outcome, Path(sys.argv[1]) / f"{name}.pt")
