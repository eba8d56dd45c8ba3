"""policy_tuning=freeze: embeddings and the first blocks stay as they were, in every family."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.tuning.freeze import freeze
from rlhf_lightning.rollout.sampler.native import native
from tests.fixtures.models import make_tiny, write_reader

FROZEN = {
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.h.0."),
    "llama": ("model.embed_tokens", "model.layers.0."),
    "t5": ("shared", "encoder.block.0.", "decoder.block.0."),
}


@pytest.mark.parametrize("family", FROZEN)
def test_the_first_blocks_and_the_embeddings_stay(family, tmp_path):
    policy = Policy(encoder_decoder((), path=write_reader("t5", tmp_path / "t5")) if family == "t5" else make_tiny(family))
    freeze(policy.model, layers=1)
    frozen = {name for name, parameter in policy.model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in policy.model.named_parameters() if name.startswith(FROZEN[family])}
    torch.manual_seed(0)
    rollout = native(policy.language_model, policy.language_model.encode_prompts(["It", "a fan"], 8), max_new_tokens=8)
    policy(rollout).log_probs.sum().backward()
    assert {name for name, parameter in policy.model.named_parameters() if parameter.grad is None} == frozen


def test_embeddings_alone_or_blocks_alone(tiny_of):
    model = tiny_of("llama").model
    freeze(model)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"model.embed_tokens.weight"}
    freeze(model, layers=2, embeddings=False)
    assert model.model.embed_tokens.weight.requires_grad
    assert not any(p.requires_grad for p in model.model.layers.parameters())
    with pytest.raises(ConfigError, match=r"policy_tuning\.layers=3: LlamaForCausalLM has 2 blocks"):
        freeze(model, layers=3)
