"""Activation checkpointing: the same numbers and gradients to the bit, with less saved for the backward pass."""

from __future__ import annotations

import copy

import pytest
import torch

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations, has_checkpointing
from rlhf_lightning.model.adapters import add_adapters
from rlhf_lightning.model.packing import PackedTokens, supports_packing
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.policy.critic.separate import separate
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampler.native import native
from tests.fixtures.models import make_tiny, write_reader

PROMPTS = ["It", "Review of a lamp:\n", "a quiet fan, and it costs"]


def language_model_of(family, folder):
    return make_tiny(family) if family in ("gpt2", "llama") else encoder_decoder((), path=write_reader(family, folder))


def rollout_of(language_model):
    torch.manual_seed(1)
    return native(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(2), max_new_tokens=12)


def gradients(policy, rollout):
    """Gradients of a policy's outputs, and the bytes saved for them."""
    saved = {}
    policy.zero_grad()
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.setdefault(x.data_ptr(), x) is None or x, lambda x: x):
        output = policy(rollout)
    loss = output.log_probs.sum() + output.entropy.sum()
    (loss if output.values is None else loss + (output.values - 1).square().sum()).backward()
    gradient = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return gradient, sum(tensor.nbytes for tensor in saved.values())


@pytest.mark.parametrize("case", ["gpt2", "llama, LoRA", "llama, critic", "t5", "bart, dropout"])
def test_gradients_are_equal_and_less_is_saved(case, tmp_path):
    family = case.split(",")[0]
    language_model = language_model_of(family, tmp_path / "model")
    if "LoRA" in case:
        add_adapters(language_model.trunk, "policy_tuning", rank=4, alpha=8.0, dropout=0.0, targets=("all-linear",))
    critic = separate(language_model, None) if "critic" in case else None
    rollout = rollout_of(language_model)
    language_model.model.train("dropout" in case)
    plain, plain_bytes = gradients(Policy(language_model, critic), rollout)
    checkpoint_activations(language_model.model)
    critic = separate(language_model, None) if "critic" in case else None
    recomputed, recomputed_bytes = gradients(Policy(language_model, critic), rollout)
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    assert recomputed_bytes < 0.8 * plain_bytes
    language_model.model.eval()
    assert torch.equal(rollout_of(language_model).sampled_log_probs, rollout.sampled_log_probs)


def test_packed_encoders_and_copies(trunk_folder):
    trunk = load_trunk(trunk_folder("bert"))[0]
    tokens, weights = PackedTokens.of([[5, 9, 12], [7, 8]]), list(trunk.parameters())
    assert supports_packing(trunk)
    plain = torch.autograd.grad(text_vectors(trunk, tokens).square().sum(), weights, allow_unused=True)
    twin = copy.deepcopy(trunk)
    checkpoint_activations(trunk)
    assert has_checkpointing(copy.deepcopy(trunk))
    assert not has_checkpointing(twin)
    recomputed = torch.autograd.grad(text_vectors(trunk, tokens).square().sum(), weights, allow_unused=True)
    assert all(a is b or torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_an_architecture_without_it_is_refused():
    with pytest.raises(ConfigError, match=r"backbone\.activation_checkpointing=true: .*Linear"):
        checkpoint_activations(torch.nn.Linear(2, 2))
