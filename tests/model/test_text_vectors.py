"""A text's vectors don't depend on what it is read with: padding, packing, positions scaled by the longest text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    FNetConfig,
    GemmaConfig,
    LlamaConfig,
    Phi3Config,
    T5Config,
    XLNetConfig,
)

from rlhf_lightning.errors import ConfigError, OverlongPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, supports_packing
from rlhf_lightning.model.rope import rope_limit
from rlhf_lightning.model.text_vectors import Batching, batching, check_batch_invariance, text_groups, text_vectors, token_vectors

SHAPE: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [6.0, 5.0, 4.0, 3.0],
    "original_max_position_embeddings": 16,
}  # fmt: skip
ROPES = {
    "longrope, phi3": lambda: Phi3Config(
        **SHAPE, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters={**LONG}
    ),
    "longrope, llama": lambda: LlamaConfig(**SHAPE, max_position_embeddings=64, rope_parameters={**LONG}),
    "dynamic, llama": lambda: LlamaConfig(
        **SHAPE, max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    ),
    "dynamic, gemma": lambda: GemmaConfig(
        **SHAPE, head_dim=8, max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    ),
}
LENGTHS = [7, 40, 16, 17, 3, 23, 40, 30]


def trunk_of(config: Any) -> Any:
    """A model without dropout whose weights are large enough that an error of position or attention shows in its output."""
    torch.manual_seed(0)
    trunk = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5.0)
    return trunk


def tokens_of(lengths: list[int]) -> PackedTokens:
    ids = torch.randint(3, 99, (sum(lengths),), generator=torch.Generator().manual_seed(sum(lengths)))
    return PackedTokens(ids, torch.tensor(lengths))


def by_fresh_models(config: Any, tokens: PackedTokens) -> torch.Tensor:
    """Each text read alone by a model that has read nothing before."""
    rows = tokens.ids.split(tokens.lengths.tolist())
    return torch.cat([trunk_of(config)(input_ids=row[None]).last_hidden_state[0] for row in rows])


@pytest.mark.parametrize("name", ROPES)
@torch.no_grad()
def test_positions_scaled_by_the_longest_text_are_those_of_each_text_alone(name):
    trunk, tokens = trunk_of(ROPES[name]()), tokens_of(LENGTHS)
    expected = by_fresh_models(ROPES[name](), tokens)
    assert rope_limit(trunk) == (16, name.startswith("dynamic"))
    for _ in range(2):  # a longer text before leaves nothing behind
        assert torch.allclose(text_vectors(trunk, tokens), expected, atol=1e-4)
    matrix, mask = token_vectors(trunk, tokens)
    assert torch.allclose(matrix[mask.bool()], expected, atol=1e-4)
    short = tokens_of([7, 16, 3])
    assert torch.allclose(text_vectors(trunk, short), by_fresh_models(ROPES[name](), short), atol=1e-4)
    assert text_groups(trunk, short) is None
    groups = text_groups(trunk, tokens)
    assert groups is not None
    assert len(groups) == (5 if name.startswith("dynamic") else 2)


@pytest.mark.parametrize("name", ROPES)
def test_gradients_of_scaled_positions_are_those_of_each_text_alone(name):
    trunk, tokens = trunk_of(ROPES[name]()), tokens_of([7, 30, 17])
    text_vectors(trunk, tokens).square().sum().backward()
    own = {name: parameter.grad.clone() for name, parameter in trunk.named_parameters()}
    total = {name: torch.zeros_like(grad) for name, grad in own.items()}
    for row in tokens.ids.split(tokens.lengths.tolist()):
        fresh = trunk_of(ROPES[name]())
        fresh(input_ids=row[None]).last_hidden_state.square().sum().backward()
        for key, parameter in fresh.named_parameters():
            total[key] += parameter.grad
    for key, gradient in own.items():
        assert torch.allclose(gradient, total[key], atol=2e-3, rtol=2e-3), key


@torch.no_grad()
def test_an_encoder_without_masks_reads_texts_of_equal_length_together():
    config = FNetConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=40, pad_token_id=0
    )
    trunk, tokens = trunk_of(config), tokens_of([7, 3, 12, 7, 3])
    assert batching(trunk) is Batching.EQUAL_LENGTHS
    alone = [trunk(input_ids=row[None]).last_hidden_state[0] for row in tokens.ids.split(tokens.lengths.tolist())]
    assert torch.allclose(text_vectors(trunk, tokens), torch.cat(alone), atol=1e-4)
    matrix, mask = token_vectors(trunk, tokens)
    assert torch.allclose(matrix[mask.bool()], torch.cat(alone), atol=1e-4)
    check_batch_invariance(trunk, causal=False)
    with pytest.raises(ConfigError, match="FNetModel is not supported as a language model: its vector of a token depends on later"):
        check_batch_invariance(trunk, causal=True)


def test_texts_are_written_within_the_positions_that_no_length_scales(tiny_of):
    language_model = LanguageModel(AutoModelForCausalLM.from_config(ROPES["longrope, phi3"]()), tiny_of("llama").tokenizer)
    assert (language_model.max_length, language_model.max_generated_length) == (64, 16)
    with pytest.raises(OverlongPrompt, match="don't fit the model's 16 positions before they are scaled by the length of the text"):
        language_model.encode_prompts(["A lamp that is bright and cheap"], 12)


def test_a_model_that_sees_later_tokens_is_no_language_model():
    config = XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=48, pad_token_id=0, bos_token_id=2, eos_token_id=1)
    with pytest.raises(ConfigError, match="depends on later tokens"):
        check_batch_invariance(trunk_of(config), causal=True)


def test_an_encoder_decoder_is_read_alone_and_in_company():
    config = T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1
    )
    torch.manual_seed(0)
    check_batch_invariance(AutoModelForSeq2SeqLM.from_config(config), causal=True)


CONFIGURED = {
    "attention_chunk_size": {"attention_chunk_size": 8192},
    "sliding_window": {"sliding_window": 4096},
    "index_topk": {"index_topk": 2048},
    "layer_types": {"layer_types": ["full_attention", "linear_attention"]},
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_what_a_short_trial_can_t_show_is_read_in_the_config(name):
    trunk = trunk_of(LlamaConfig(**SHAPE, max_position_embeddings=64))
    for key, value in CONFIGURED[name].items():
        setattr(trunk.config, key, value)
    assert not supports_packing(trunk)
    assert supports_packing(trunk_of(LlamaConfig(**SHAPE, max_position_embeddings=64)))
