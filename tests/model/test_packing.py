"""Packed texts: the vectors and gradients of each text alone, for every architecture that is said to be supported."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    ModernBertConfig,
    OPTConfig,
    Qwen2Config,
    RobertaConfig,
)

from rlhf_lightning.model import packed_attention
from rlhf_lightning.model.packing import ROUND, PackedTokens, packed_hidden, padded_hidden, supports_packing, unpack

SMALL: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 40,
}  # fmt: skip
CONFIGS = {
    "gpt2": lambda: GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=40),
    "gpt2, scaled by layer": lambda: GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=40, scale_attn_by_inverse_layer_idx=True
    ),
    "llama": lambda: LlamaConfig(**SMALL),
    "llama, two key heads": lambda: LlamaConfig(**SMALL, num_key_value_heads=2),
    "qwen2, one key head": lambda: Qwen2Config(**SMALL, num_key_value_heads=1),
    "gpt-neox": lambda: GPTNeoXConfig(**SMALL),
    "opt": lambda: OPTConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=40,
        word_embed_proj_dim=32,
    ),
    "bert": lambda: BertConfig(**SMALL),
    "roberta": lambda: RobertaConfig(**SMALL),
}  # fmt: skip
REFUSED = {
    "sliding window": lambda: MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4096),
    "sliding and full layers": lambda: Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8),
    "local encoder": lambda: ModernBertConfig(**SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
    "alibi": lambda: FalconConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True),
    "its own attention": lambda: BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=4),
    "a state": lambda: MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2),
}
LENGTHS = [[7, 1, 20, 3, 3, 1, 19, 12], [1], [40, 40], [5, 0, 6], [1, 1, 1]]


def trunk_of(config: Any, scale: float = 5.0) -> Any:
    """A model without dropout whose weights are large enough that an error of position or attention shows in its output."""
    torch.manual_seed(0)
    trunk = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return trunk


def tokens_of(lengths: list[int]) -> PackedTokens:
    ids = torch.randint(3, 99, (sum(lengths),), generator=torch.Generator().manual_seed(sum(lengths)))
    return PackedTokens(ids, torch.tensor(lengths))


def alone(trunk: Any, tokens: PackedTokens) -> Tensor:
    """Each text run by itself, unpadded."""
    rows = tokens.ids.split(tokens.lengths.tolist())
    return torch.cat([trunk(input_ids=row[None]).last_hidden_state[0] for row in rows if len(row)])


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_vectors_are_those_of_each_text_alone(name):
    config = CONFIGS[name]()
    longest = 37 if name == "roberta" else 40  # its positions begin after its padding's id
    reference, trunk = trunk_of(config), trunk_of(config)
    assert supports_packing(trunk)
    for lengths in LENGTHS:
        tokens = tokens_of([min(n, longest) for n in lengths])
        expected, found = alone(reference, tokens), packed_hidden(trunk, tokens)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
        # What isn't packed still runs as before.
        padded, mask = padded_hidden(trunk, tokens)
        assert (padded[mask.bool()] - expected).abs().max() < 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", ["gpt2", "llama, two key heads", "qwen2, one key head", "bert"])
def test_gradients_are_those_of_each_text_alone(name):
    config = CONFIGS[name]()
    reference, trunk = trunk_of(config), trunk_of(config)
    tokens = tokens_of(LENGTHS[0])
    weights = torch.randn(len(tokens.ids), 32, generator=torch.Generator().manual_seed(1))
    assert supports_packing(trunk)
    (alone(reference, tokens) * weights).sum().backward()
    (packed_hidden(trunk, tokens) * weights).sum().backward()
    compared = 0
    for (place, one), (_, other) in zip(reference.named_parameters(), trunk.named_parameters(), strict=True):
        if one.grad is not None and one.grad.abs().max() > 0:
            compared += 1
            assert (one.grad - other.grad).norm() < 1e-4 * one.grad.norm() + 1e-5, place
    assert compared > 10


def test_gradients_with_checkpointing_are_the_same():
    """Layers that are run again in the backward pass find the layout again."""
    tokens, grads = tokens_of(LENGTHS[0]), []
    for checkpointing in (False, True):
        trunk = trunk_of(CONFIGS["llama"]())
        assert supports_packing(trunk)
        trunk.train()
        if checkpointing:
            trunk.gradient_checkpointing_enable()
        packed_hidden(trunk, tokens).square().sum().backward()
        grads.append(trunk.layers[0].self_attn.q_proj.weight.grad)
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["gpt2", "llama, two key heads"])
@torch.no_grad()
def test_bfloat16_agrees_within_its_precision(name):
    trunk, tokens = trunk_of(CONFIGS[name](), 1.0), tokens_of(LENGTHS[0])
    exact = alone(trunk, tokens)
    half = copy.deepcopy(trunk).bfloat16()
    assert supports_packing(half)
    for found in (packed_hidden(half, tokens).float(), alone(half, tokens).float()):
        assert (found - exact).abs().mean() < 0.02
    assert supports_packing(trunk)
    with torch.autocast("cpu", torch.bfloat16):
        assert (packed_hidden(trunk, tokens).float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("name", REFUSED)
def test_what_packing_would_get_wrong_is_refused_and_left_as_it_was(name):
    reference, trunk = trunk_of(REFUSED[name]()), trunk_of(REFUSED[name]())
    own = trunk.config._attn_implementation
    assert not supports_packing(trunk)
    assert not supports_packing(trunk)
    assert trunk.config._attn_implementation == own
    with torch.no_grad():
        tokens = tokens_of([7, 3, 9])
        expected = reference(input_ids=tokens.to_padded()[0], attention_mask=tokens.to_padded()[1]).last_hidden_state
        assert torch.equal(trunk(input_ids=tokens.to_padded()[0], attention_mask=tokens.to_padded()[1]).last_hidden_state, expected)
    with pytest.raises(Exception, match="doesn't run on packed tokens"):
        packed_hidden(trunk, tokens)


def test_a_window_of_some_layers_is_not_packed(tiny_model):
    trunk = tiny_model("neomme", "encoder")
    assert any(layer.sliding_window for layer in trunk.config.per_layer_config)
    assert not supports_packing(trunk)


def test_the_trial_leaves_modes_and_randomness_alone(tmp_path):
    trunk = trunk_of(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=40, attn_pdrop=0.5)).train()
    trunk.h[0].eval()
    torch.manual_seed(3)
    before = {name: module.training for name, module in trunk.named_modules()}
    state = torch.get_rng_state()
    assert supports_packing(trunk)
    assert {name: module.training for name, module in trunk.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    trunk.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_dropout_of_the_attention_is_applied_in_training_alone():
    trunk = trunk_of(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=40, attn_pdrop=0.5, resid_pdrop=0, embd_pdrop=0))
    assert supports_packing(trunk)
    tokens = tokens_of([9, 4])
    assert torch.equal(packed_hidden(trunk, tokens), packed_hidden(trunk, tokens))
    trunk.train()
    assert not torch.allclose(packed_hidden(trunk, tokens), packed_hidden(trunk, tokens), atol=1e-3)


def test_no_text_sees_another():
    trunk, tokens = trunk_of(CONFIGS["llama"]()), tokens_of([4, 4, 7])
    assert supports_packing(trunk)
    changed = PackedTokens(tokens.ids.clone(), tokens.lengths)
    changed.ids[4:8] = 5
    difference = (packed_hidden(trunk, tokens) - packed_hidden(trunk, changed)).abs().amax(1)
    assert (difference[:4] < 1e-6).all()
    assert (difference[8:] < 1e-6).all()
    assert (difference[4:8] > 1e-3).any()


@torch.no_grad()
def test_the_row_is_filled_up_so_that_few_numbers_of_tokens_are_ever_seen():
    trunk = trunk_of(CONFIGS["llama"]())
    assert supports_packing(trunk)
    seen = []
    trunk.layers[0].mlp.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    for lengths in ([1], [13, 50], [40, 24], [40, 25]):
        tokens = tokens_of(lengths)
        assert packed_hidden(trunk, tokens).shape[0] == sum(lengths)
    assert seen == [ROUND, ROUND, ROUND, 2 * ROUND]


@pytest.mark.parametrize("config", ["gpt2", "llama"])
def test_under_bfloat16_the_attention_on_a_cpu_is_in_float32(config, monkeypatch):
    trunk, seen = trunk_of(CONFIGS[config]()), set()
    assert supports_packing(trunk)
    own = packed_attention.scaled_dot_product_attention

    def watched(query, *rest, **options):
        out = own(query, *rest, **options)
        seen.update([query.dtype, out.dtype])
        return out

    monkeypatch.setattr(packed_attention, "scaled_dot_product_attention", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed_hidden(trunk, tokens_of([4, 9]))
    assert seen == {torch.float32}


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=6))
def test_padding_packed_tokens_gives_back_the_rows(rows):
    tokens = PackedTokens.of(rows)
    ids, mask = tokens.to_padded(pad=0)
    assert len(tokens) == len(rows)
    assert [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)] == rows
    assert not ids[~mask.bool()].any()
    assert ids.shape[1] == max(map(len, rows))
    vectors, inside = unpack(torch.arange(len(tokens.ids))[:, None] + torch.tensor([0.0, 0.5]), tokens.lengths)
    assert torch.equal(vectors[inside][:, 0], torch.arange(len(tokens.ids)).float())
