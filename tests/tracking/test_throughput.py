"""Speeds: what is counted of a batch, and what it makes a second."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.tracking.throughput import EPISODES, LENGTH, Throughput, last_responses

CPU = torch.device("cpu")


def texts(*lengths: int) -> PackedTokens:
    return PackedTokens.of([[1] * length for length in lengths])


def model() -> nn.Module:
    """10 rows that are looked up, and 12 weights that tokens are multiplied with."""
    return nn.Sequential(nn.Embedding(10, 3), nn.Linear(3, 4, bias=False))


def test_packed_texts_are_counted_by_token():
    speed = Throughput()
    for batch in (texts(3, 5), SimpleNamespace(tokens=texts(4))):
        speed.add(model(), batch)
    assert speed.metrics(2.0, CPU, "32-true", 1) == {"perf/tokens_per_second": 6.0, "perf/samples_per_second": 1.5}
    assert speed.local.flops == 6 * 12 * 12
    assert speed.rate(2.0) is None, "other processes have texts too"


def test_responses_are_counted_by_the_history():
    """Of the second update: 8 responses of 2.5 tokens, to 2 prompts of 3 tokens each."""
    speed, module = Throughput(), model()
    module.history = [{LENGTH: 9.0, EPISODES: 8.0}, {LENGTH: 2.5, EPISODES: 16.0}]
    module.settings = SimpleNamespace(epochs=2)
    prompts = Prompts(
        prompts=["a", "b"], prompt_ids=torch.ones(2, 3, dtype=torch.long), prompt_mask=torch.ones(2, 3, dtype=torch.long),
        group=torch.arange(2),
    )  # fmt: skip
    speed.add(module, prompts)
    assert speed.metrics(4.0, CPU, "32-true", 1) == {"perf/tokens_per_second": 5.0, "perf/samples_per_second": 2.0}
    assert speed.rate(4.0) == 5.0
    assert speed.total.flops == 12 * (20 + 8 * 3) * (3 * 2 + 2 * 6)


def test_the_share_of_a_known_device_s_peak(monkeypatch):
    speed = Throughput()
    speed.total.tokens, speed.total.flops = 1.0, 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch, "tensor", lambda *values, **rest: torch.zeros(3))
    found = speed.metrics(4.0, torch.device("cuda", 0), "bf16-mixed", 2)
    assert found["perf/mfu"] == pytest.approx(1 / 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an unknown one")
    assert "perf/mfu" not in speed.metrics(4.0, torch.device("cuda", 0), "bf16-mixed", 2)


@pytest.mark.parametrize("history", [[], [{"loss": 1.0}], [{LENGTH: 3.0}]])
def test_a_history_that_says_nothing_counts_nothing(history):
    assert last_responses(history) == (0.0, 0.0)
    speed = Throughput()
    speed.add(SimpleNamespace(history=history), None)
    assert speed.metrics(1.0, CPU, "32-true", 1) == {}


@pytest.mark.parametrize(("stage", "log"), [("sft", "sft"), ("ppo", "ppo")])
def test_speeds_are_logged_and_stand_on_the_page_and_not_in_the_curves(command, world, stage, log):
    outcome = command(*getattr(world, stage)("logger=csv"))
    assert outcome.code == 0, outcome.error
    with (outcome.folder / "logs" / log / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = [float(row["perf/tokens_per_second"]) for row in rows if row["perf/tokens_per_second"]]
    assert said
    assert min(said) > 0
    assert len({row["step"] for row in rows}) == len(rows), "speeds stand in the row of their step"
    assert "tokens a second" in (outcome.folder / "report.html").read_text()
    assert "tokens a second" not in outcome.out
