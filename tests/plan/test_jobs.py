"""Sizes, shares and seconds by closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from rlhf_lightning.plan.device import Device
from rlhf_lightning.plan.fake_run import Texts
from rlhf_lightning.plan.models import LAYER_SECONDS, Part, Roofline, forward_flops, matrix_weights, policy_of_config, states_per_weight
from rlhf_lightning.plan.passes import PassMemory
from rlhf_lightning.plan.phases import CONTEXT, FIRST_STEPS, HEAP_OVERHEAD, OVERHEAD, ROLLOUT, TRAINING, Phase, Plan, Setup
from rlhf_lightning.registry import make

CONFIG = LlamaConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24, vocab_size=50,
    tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
)  # fmt: skip
MATRICES = 2 * (16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24)
DEVICE = Device("made up", 1e9, {"float32": 1e6}, 1e6, host=True)


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return policy_of_config(CONFIG)


def test_a_part_s_bytes(model):
    part = Part.of("policy", model)
    count = MATRICES + 50 * 16 + 5 * 16
    assert (part.parameters, part.trained, part.gradients, part.optimiser) == (count, count, 4 * count, 8 * count)
    assert part.weights >= 4 * count
    assert Part.of("policy", model, 4).optimiser == 2 * count
    frozen = Part.of("reference", nn.Linear(3, 3).requires_grad_(False))
    assert (frozen.trained, frozen.gradients, frozen.optimiser) == (0, 0, 0)


def test_the_memory_of_an_optimizer_is_measured():
    trained = {"adamw": 2.0, "sgd": 0.0, "muon": 1.0, "adafactor": 2 * 512 / 512**2}
    for name, expected in trained.items():
        assert states_per_weight(make("optimizer", name, {})) == expected


def test_flops_by_hand(model):
    texts = Texts((3, 5), (1, 2))
    assert matrix_weights(model.base_model) == MATRICES
    expected = 2 * MATRICES * 8 + 4 * 2 * 16 * (9 + 25) / 2 + 2 * 800 * 3
    assert forward_flops(model.base_model, texts, 800) == expected
    roofline = Roofline(DEVICE, "32-true")
    assert roofline.forward(model.base_model, texts, 800) == pytest.approx(expected / 1e6 + 2 * LAYER_SECONDS)
    assert roofline.train_step(model.base_model, texts, 800) == pytest.approx(3 * expected / 1e6 + 6 * LAYER_SECONDS)


def test_parts_of_texts_have_all_of_them():
    texts = Texts.of(range(1, 8), range(7))
    assert texts.tokens == sum(range(1, 8)) + sum(range(7))
    assert len(texts.part(3)) == 3
    assert texts.bucketed_tokens >= texts.tokens


@pytest.mark.parametrize("keeps", [True, False])
def test_the_peak_is_the_range_of_the_greatest_phase(keeps):
    rollout = Phase(ROLLOUT, 100.0, {"policy": PassMemory(cache=50.0, heap=40.0)}, 50.0, seconds=1.0)
    training = Phase(TRAINING, 90.0, {"policy": PassMemory(activations=20.0)}, 20.0, 5.0, 3.0)
    plan = Plan(Setup("32-true", host=True, base=1000.0, keeps_freed=keeps), [], [training, rollout])
    assert plan.peak.low == 1150
    assert plan.peak.high == pytest.approx(1000 + FIRST_STEPS + 150 * (1 + OVERHEAD) + (HEAP_OVERHEAD * 40 if keeps else 0))
    assert plan.generation_fraction == 0.25


def test_a_gpu_s_peak_holds_its_context_and_no_heap():
    training = Phase(TRAINING, 90.0, {"policy": PassMemory(activations=20.0, heap=20.0)}, 20.0)
    plan = Plan(Setup("32-true", host=False, base=1000.0), [], [training])
    assert plan.peak.low == CONTEXT[0] + 110
    assert plan.peak.high == pytest.approx(CONTEXT[1] + 110 * (1 + OVERHEAD))
