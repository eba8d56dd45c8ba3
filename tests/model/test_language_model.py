"""The language model's folder, its tokens and its padding; what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, RobertaConfig

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.language_model import (
    LanguageModel,
    check_output_layer,
    freeze,
    pad_rows,
)
from rlhf_lightning.tokenization.boundary import plain_ids


@torch.no_grad()
def test_a_saved_model_is_the_same_in_plain_transformers(language_model, tmp_path):
    language_model.save(tmp_path / "policy")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "policy"), AutoTokenizer.from_pretrained(tmp_path / "policy")
    text = "The kettle boils — <|end|> 水 \x00 quickly.\n  "
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert ids.tolist() == [language_model.tokenizer(text)["input_ids"]]
    # Ours has its activations fused.
    assert (model(input_ids=ids).logits - language_model.model(input_ids=ids).logits).abs().max() < 1e-5
    assert [file.suffix for file in (tmp_path / "policy").glob("*.safetensors")] == [".safetensors"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (language_model.eos_ids[0], language_model.pad_id)


@torch.no_grad()
def test_logits_of_hidden_states_are_the_models_own_whatever_the_padding(language_model):
    rows = [plain_ids(language_model.tokenizer, text) for text in ("It costs", "The kettle boils water quickly.")]
    ids, _ = pad_rows(rows, language_model.pad_id)
    logits = language_model.logits(language_model.hidden_states(ids))
    assert language_model.hidden_states(ids).shape[-1] == language_model.width
    for row, found in zip(rows, logits, strict=True):
        alone = language_model.model(input_ids=torch.tensor([row])).logits[0]
        assert (found[: len(row)] - alone).abs().max() < 1e-5


def test_plain_ids_begin_once_and_hold_every_text_as_text(either_tokenizer):
    tokenizer = either_tokenizer.tokenizer
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for text, pair in [("It costs", ""), ("It costs", " little."), ("<s><|end|>", "<|pad|> <s>"), ("", "It costs")]:
        ids = plain_ids(tokenizer, text, pair)
        assert ids[: len(begin)] == begin
        rest = ids[len(begin) :]
        assert not set(rest) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(rest) == text + pair
        parts = [plain_ids(tokenizer, part)[len(begin) :] if part else [] for part in (text, pair)]
        assert rest == parts[0] + parts[1]
    assert plain_ids(tokenizer, "") == begin


def test_an_empty_prompt_is_the_begin_of_text_alone_where_there_is_one(either_tokenizer):
    if either_tokenizer.tokenizer.bos_token_id is None:
        with pytest.raises(DataError, match="a prompt is empty"):
            either_tokenizer.encode_prompts(["It", ""], 5)
        either_tokenizer.tokenizer.bos_token = either_tokenizer.tokenizer.eos_token  # as GPT-2's: there, but not put first by itself
        assert plain_ids(either_tokenizer.tokenizer, "It") == either_tokenizer.tokenizer("It")["input_ids"]
    prompts = either_tokenizer.encode_prompts(["It costs", ""], 5)
    assert prompts.prompt_mask[1].tolist() == [0] * (prompts.prompt_mask.shape[1] - 1) + [1]
    assert prompts.prompt_ids[1, -1] == either_tokenizer.tokenizer.bos_token_id
    assert prompts.prompt_mask[0].all()


def test_prompts_may_fill_what_the_response_leaves_and_no_more(either_tokenizer):
    length = len(plain_ids(either_tokenizer.tokenizer, "The kettle boils"))
    room = either_tokenizer.max_length - length
    assert either_tokenizer.max_length == 64
    assert either_tokenizer.encode_prompts(["The kettle boils"], room).prompt_ids.shape == (1, length)
    with pytest.raises(DataError, match=rf"a prompt of {length} tokens .*64 positions"):
        either_tokenizer.encode_prompts(["The kettle boils"], room + 1)


@torch.no_grad()
def test_a_decoder_that_counts_positions_from_its_padding_has_fewer(tiny_of):
    """RoBERTa begins behind its padding's id; a text of all positions of the config would leave its table."""
    tokenizer = tiny_of("llama").tokenizer
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40}
    config = RobertaConfig(vocab_size=len(tokenizer), is_decoder=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=1, **sizes)
    language_model = LanguageModel(AutoModelForCausalLM.from_config(config), tokenizer)
    assert language_model.max_length == 38
    language_model.model(input_ids=torch.full((1, 38), 5))
    with pytest.raises((IndexError, RuntimeError)):
        language_model.model(input_ids=torch.full((1, 39), 5))


def test_decoding_reads_the_mask_and_leaves_special_tokens_out(either_tokenizer):
    texts = ["It costs little .", " two  blanks"]
    end = either_tokenizer.eos_ids[0]
    rows = [[*either_tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
    ids, mask = pad_rows(rows, 7)
    assert either_tokenizer.decode(ids, mask) == texts


def test_every_end_of_text_of_the_generation_config_counts(language_model):
    assert language_model.eos_ids == [language_model.tokenizer.eos_token_id]
    language_model.model.generation_config.eos_token_id = [3, 5]
    assert language_model.eos_ids == [3, 5]
    language_model.tokenizer.pad_token = None
    assert language_model.pad_id == 3
    language_model.model.generation_config.eos_token_id = None
    language_model.tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="end-of-text"):
        _ = language_model.eos_ids


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=4), st.booleans())
def test_padding_keeps_every_row_on_its_side(rows: list[list[int]], left: bool) -> None:
    ids, mask = pad_rows(rows, pad=0, pad_left=left)
    longest = max(map(len, rows), default=0)
    assert ids.shape == mask.shape == (len(rows), longest)
    for row, found, inside in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        padding = [0] * (longest - len(row))
        assert found == (padding + row if left else row + padding)
        assert inside == (padding + [1] * len(row) if left else [1] * len(row) + padding)


def softened(family: str, tokenizer) -> LanguageModel:
    """A tiny model whose architecture treats its logits after the output layer."""
    from transformers import CohereConfig, Gemma2Config, GraniteConfig

    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
    }  # fmt: skip
    config = {
        "soft-capping": lambda: Gemma2Config(**shape, head_dim=16, final_logit_softcapping=30.0),
        "no capping": lambda: Gemma2Config(**shape, head_dim=16, final_logit_softcapping=None),
        "divided": lambda: GraniteConfig(**shape, logits_scaling=8.0),
        "scaled": lambda: CohereConfig(**shape, logit_scale=0.0625),
    }[family]()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20.0)  # a trained model's logits are large enough for a cap to show
    return LanguageModel(model, tokenizer)


@pytest.mark.parametrize("family", ["soft-capping", "divided", "scaled"])
def test_a_model_that_changes_its_logits_is_read_as_it_changes_them(tiny_of, family):
    language_model = softened(family, tiny_of("llama").tokenizer)
    check_output_layer(language_model)
    assert language_model.model.training
    ids = torch.tensor([[5, 9, 7]])
    expected = language_model.model.eval()(input_ids=ids).logits
    assert torch.allclose(language_model.logits(language_model.hidden_states(ids)), expected, atol=1e-5)


def test_a_model_that_leaves_its_logits_alone_is_taken(language_model):
    language_model.model.train()
    check_output_layer(language_model)
    assert language_model.model.training
    check_output_layer(softened("no capping", language_model.tokenizer))


def test_frozen_is_in_eval_mode_without_gradients(language_model):
    model = language_model.model.train()
    assert freeze(model) is model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
