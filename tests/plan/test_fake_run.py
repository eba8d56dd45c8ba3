"""What is counted without numbers is what the real code allocates."""

from __future__ import annotations

import copy

import pytest
import torch

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, supports_packing
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.model.token_log_probs import response_log_probs, token_log_probs
from rlhf_lightning.plan.fake_run import HEAP_BLOCK, MemoryTracker, Texts, fake_mode, to_fake
from rlhf_lightning.plan.models import Trunk, policy_of_config
from rlhf_lightning.plan.passes import PolicyPasses

BEFORE, AFTER = (9, 20, 14, 30, 11, 25, 8, 16), (40, 33, 21, 50, 44, 12, 37, 29)
TEXTS = Texts.of(BEFORE, AFTER)
CLOSE = 0.03


def pair(family: str, **settings: int) -> tuple[LanguageModel, PolicyPasses]:
    """A real model, and passes of one without numbers that has its config."""
    real = tiny(["the kettle boils water quickly and it costs little "] * 40, family=family, width=64, heads=4, positions=128, **settings)
    with torch.device("meta"):
        model = policy_of_config(copy.deepcopy(real.model.config))
    mode = fake_mode()
    shaped = LanguageModel(to_fake(mode, model.eval()), real.tokenizer)
    real.model.eval()
    return real, PolicyPasses(mode, shaped, Trunk.of(shaped.model.base_model), "32-true", host=True)


def packed() -> PackedTokens:
    return PackedTokens.of([[5] * length for length in TEXTS.lengths], BEFORE)


def alive(model: LanguageModel) -> MemoryTracker:
    assert supports_packing(model.model.base_model)
    return MemoryTracker([*model.model.parameters(), *model.model.buffers()])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("entropy", [True, False])
def test_ppo_s_forward_and_backward(family, entropy):
    real, passes = pair(family)
    tokens = packed()
    starts = tokens.lengths.cumsum(0) - tokens.lengths
    places = torch.cat([torch.arange(s + b - 1, s + b - 1 + a) for s, b, a in zip(starts.tolist(), BEFORE, AFTER, strict=True)])
    with alive(real) as live:
        hidden = text_vectors(real.model.base_model, tokens)
        activations = live.now
        log_probs, entropies = token_log_probs(
            real.model.get_output_embeddings(), hidden.index_select(0, places), tokens.ids[places], 1.0, entropy
        )
        logits = live.now - activations
        (log_probs.sum() + (0 if entropies is None else entropies.sum())).backward()
    found = passes.train_step(TEXTS, entropy=entropy)
    assert found.peak == pytest.approx(live.peak, rel=CLOSE)
    assert found.activations == pytest.approx(activations, rel=CLOSE)
    assert found.logits == pytest.approx(logits, rel=CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_log_probabilities_of_supervised_training(family):
    real, passes = pair(family)
    tokens = packed()
    with alive(real) as live:
        response_log_probs(real, tokens)[0].sum().backward()
    assert passes.train_step(TEXTS, chunked=False).peak == pytest.approx(live.peak, rel=CLOSE)


def test_activation_checkpointing_keeps_the_blocks_inputs_alone():
    real, passes = pair("gpt2", layers=4)
    tokens, plain = packed(), passes.train_step(TEXTS, chunked=False)
    checkpoint_activations(real.model)
    checkpoint_activations(passes.policy.model)
    with alive(real) as live:
        response_log_probs(real, tokens)[0].sum().backward()
    planned = passes.train_step(TEXTS, chunked=False)
    assert planned.peak == pytest.approx(live.peak, rel=CLOSE)
    assert planned.activations < 0.5 * plain.activations


def test_reading_keeps_no_layer():
    real, passes = pair("llama", layers=4)
    with alive(real) as live, torch.no_grad():
        text_vectors(real.model.base_model, packed())
    read = passes.forward(TEXTS)
    assert read.activations == pytest.approx(live.peak, rel=CLOSE)
    assert read.peak < passes.train_step(TEXTS).peak / 2


def test_a_second_micro_batch_finds_gradients():
    _, passes = pair("gpt2")
    gradients = sum(parameter.nbytes for parameter in passes.policy.model.parameters())
    assert passes.train_step(TEXTS, again=True).peak >= passes.train_step(TEXTS).peak + 0.5 * gradients
    assert all(parameter.grad is None for parameter in passes.policy.model.parameters())


def test_a_second_trunk_keeps_its_own_activations():
    _, passes = pair("llama")
    trunk = Trunk.of(copy.deepcopy(passes.policy.model.base_model))
    both = PolicyPasses(passes.mode, passes.policy, passes.trunk, "32-true", True, trunk, has_critic=True)
    one = passes.train_step(TEXTS)
    assert both.train_step(TEXTS).activations == pytest.approx(2 * one.activations, rel=0.05)


def test_bfloat16_keeps_less():
    _, passes = pair("gpt2", layers=4)
    mixed = PolicyPasses(passes.mode, passes.policy, passes.trunk, "bf16-mixed", host=False)
    assert mixed.train_step(TEXTS).activations < 0.85 * passes.train_step(TEXTS).activations


def test_keys_and_values_by_their_formula():
    _, passes = pair("llama", layers=3)
    drawn = passes.generate((5, 9, 7), 11, 1.0, 1.0)
    assert drawn.cache == 2 * 3 * 3 * (9 + 11) * 64 * 4


def test_live_sees_tensors_come_and_go():
    with MemoryTracker() as live:
        one = torch.zeros(1000)
        other = one[:10]
        assert live.now == 4000, "a view is no memory"
        del one
        assert live.now == 4000
        del other
        assert live.now == 0
        large = torch.empty(HEAP_BLOCK // 4 + 1)
    assert live.peak == large.nbytes
    assert live.heap == 0


def test_tied_weights_stay_tied():
    _, passes = pair("gpt2")
    model = passes.policy.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
