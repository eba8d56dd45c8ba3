"""The model and tokenizer made on the spot."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.backbone.tiny import byte_level_bpe, tiny
from rlhf_lightning.errors import ConfigError

CORPUS = ["The kettle boils water quickly.", "It is a quiet fan, and it costs little."] * 20
TOKENIZER = byte_level_bpe(CORPUS, 300)


@given(st.text(max_size=30))
def test_every_text_goes_in_and_comes_out_unchanged(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert not set(ids) & {TOKENIZER.pad_token_id, TOKENIZER.eos_token_id}


def test_the_tokenizer_is_decided_by_its_corpus_and_learns_its_words():
    again, other = byte_level_bpe(iter(CORPUS), 300), byte_level_bpe(["zebra zebra"] * 20, 300)
    assert again.get_vocab() == TOKENIZER.get_vocab() != other.get_vocab()
    assert 258 < len(TOKENIZER) <= 300
    assert len(TOKENIZER("kettle kettle")["input_ids"]) < len(other("kettle kettle")["input_ids"])
    assert TOKENIZER.bos_token_id is None
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_model_has_the_requested_shape_and_under_a_million_parameters(family):
    language_model = tiny(CORPUS, family=family)
    assert (language_model.width, language_model.max_length) == (128, 128)
    assert sum(parameter.numel() for parameter in language_model.model.parameters()) < 1_000_000
    small = tiny(CORPUS, family=family, layers=3, width=24, heads=2, vocabulary=280, positions=48)
    assert (small.width, small.max_length, len(small.tokenizer)) == (24, 48, 280)
    assert small.model.config.num_hidden_layers == 3
    embedding, output = small.model.get_input_embeddings(), small.model.get_output_embeddings()
    assert embedding.weight is output.weight
    assert embedding.weight.shape == (280, 24)
    assert small.eos_ids == [small.tokenizer.eos_token_id]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_weights_follow_the_seed_and_training_has_no_dropout(family):
    def made(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = tiny(CORPUS, family=family, width=16, heads=2, vocabulary=270).model.train()
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
        return model(input_ids=ids).logits

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"backbone.width=30 must be a multiple of backbone.heads=4"):
        tiny(CORPUS, width=30, heads=4)
