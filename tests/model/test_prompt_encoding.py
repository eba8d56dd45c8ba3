"""Prompt and response as ids: each family's layout against the tokenizer's own, and what is cut."""

from __future__ import annotations

import dataclasses

import pytest
from transformers import AutoTokenizer

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder, decode_packed

PROMPT, RESPONSE = "Review of a lamp:", "It is a quiet fan."
ENCODERS = ["bert", "roberta", "distilbert", "modernbert"]


def rows_of(folder: str, input_format: InputFormat, max_length: int = 64) -> TextEncoder:
    return TextEncoder(AutoTokenizer.from_pretrained(folder), input_format, max_length)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_reads_the_tokenizers_own_pair(trunk_folder, family):
    rows = rows_of(trunk_folder(family), InputFormat("encoder", typed=True))
    for prompt, response in [(PROMPT, RESPONSE), ("", RESPONSE), ("It", "a")]:
        told = rows.tokenizer(prompt, response, return_token_type_ids=True)
        row = rows.encode((prompt, response))
        assert row.ids == told["input_ids"]
        assert row.types == told["token_type_ids"]
        assert len(row.types) == len(row.ids)
        assert (
            row.ids[len(row.before) : len(row.before) + len(row.answer)] == rows.tokenizer(response, add_special_tokens=False)["input_ids"]
        )


def test_an_empty_response_still_stands_in_the_pair(trunk_folder):
    """transformers takes an empty second text for none; a reward model must read it as an answer of nothing."""
    rows = rows_of(trunk_folder("bert"), InputFormat("encoder", typed=True))
    assert rows.encode((PROMPT, "")).ids == [*rows.tokenizer(PROMPT)["input_ids"], rows.tokenizer.sep_token_id]


def test_types_tell_the_response_from_the_prompt(trunk_folder):
    row = rows_of(trunk_folder("bert"), InputFormat("encoder", typed=True)).encode((PROMPT, RESPONSE))
    start = len(row.before)
    assert row.types == [0] * start + [1] * (len(row.ids) - start)


def test_tokens_read_back_are_the_texts(either_tokenizer, trunk_folder):
    """Of a decoder where its response begins or not; of an encoder-decoder each side from where it stands."""
    tokenizer = either_tokenizer.tokenizer
    texts = [(PROMPT, RESPONSE), ("It", " costs 3.")]
    packed, _ = TextEncoder(tokenizer, InputFormat(), 64).encode_packed(texts)
    end = tokenizer.eos_token
    begin = "" if tokenizer.bos_token_id is None else tokenizer.bos_token
    assert decode_packed(tokenizer, packed) == [{"prompt": begin + prompt, "response": response + end} for prompt, response in texts]
    whole = dataclasses.replace(packed, response_start=None)
    assert decode_packed(tokenizer, whole) == [{"text": begin + prompt + response + end} for prompt, response in texts]
    rows = rows_of(trunk_folder("t5"), InputFormat("encoder_decoder", decoder_start=0))
    (found,) = decode_packed(rows.tokenizer, rows.encode_packed([(PROMPT, RESPONSE)])[0])
    assert "Review of a lamp" in found["prompt"]
    assert "It is a quiet fan" in found["response"]
    assert "lamp" not in found["response"]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_decoder_reads_the_response_and_the_encoder_the_prompt(trunk_folder, family):
    rows = rows_of(trunk_folder(family), InputFormat("encoder_decoder", decoder_start=0))
    row = rows.encode((PROMPT, RESPONSE))
    assert row.context == rows.tokenizer(PROMPT)["input_ids"]
    assert row.ids == [0, *rows.tokenizer(RESPONSE)["input_ids"]]
    assert row.ids[len(row.before) : len(row.before) + len(row.answer)] == rows.tokenizer(RESPONSE, add_special_tokens=False)["input_ids"]
    packed, _ = rows.encode_packed([(PROMPT, RESPONSE), ("", "")])
    assert packed.context is not None
    assert len(packed.context) == 2
    assert packed.context.lengths.min() >= 1


def test_a_decoders_row_is_prompt_response_and_end(either_tokenizer):
    tokenizer = either_tokenizer.tokenizer
    row = TextEncoder(tokenizer, InputFormat(), 64).encode((PROMPT, RESPONSE))
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (PROMPT, RESPONSE)]
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    assert row.ids == [*begin, *plain[0], *plain[1], tokenizer.eos_token_id]
    assert row.ids[len(row.before) :] == [*plain[1], tokenizer.eos_token_id]


def test_an_encoder_without_a_template_reads_as_a_decoder(tiny_of):
    tokenizer = tiny_of("llama").tokenizer
    assert (
        TextEncoder(tokenizer, InputFormat("encoder"), 64).encode((PROMPT, RESPONSE)).ids
        == TextEncoder(tokenizer, InputFormat(), 64).encode((PROMPT, RESPONSE)).ids
    )


def test_special_token_strings_in_texts_stay_text(trunk_folder):
    for family, input_format in (("bert", InputFormat("encoder")), ("t5", InputFormat("encoder_decoder", 0))):
        rows = rows_of(trunk_folder(family), input_format)
        special = {rows.tokenizer.sep_token_id, rows.tokenizer.eos_token_id, rows.tokenizer.cls_token_id} - {None}
        plain, strange = rows.encode(("a", "b")), rows.encode(("[SEP] </s> a", "[CLS] b </s>"))
        for part in ("ids", "context"):
            assert sum(i in special for i in getattr(strange, part)) == sum(i in special for i in getattr(plain, part))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_cutting_takes_the_prompts_beginning_then_the_responses_end_and_no_special_token(trunk_folder, family):
    rows = rows_of(trunk_folder(family), InputFormat("encoder", typed=True), 14)
    whole = TextEncoder(rows.tokenizer, rows.input_format, 10**6).encode((PROMPT * 3, RESPONSE))
    row = rows.encode((PROMPT * 3, RESPONSE))
    added = len(rows.tokenizer("a", "a")["input_ids"]) - 2
    assert row.is_cut
    assert not whole.is_cut
    assert len(row.ids) == len(row.types) == 14
    room = 14 - added - len(whole.answer)
    assert room > 0
    assert row.answer == whole.answer
    middle = added - 2  # of what is added, one token comes first and one last
    assert row.before[1:-middle] == whole.before[1:-middle][-room:]
    long = rows.encode((PROMPT, RESPONSE * 5))
    assert len(long.ids) == 14
    assert len(long.before) == added - 1
    assert long.answer == TextEncoder(rows.tokenizer, rows.input_format, 10**6).encode((PROMPT, RESPONSE * 5)).answer[: 14 - added]


def test_each_side_of_an_encoder_decoder_is_cut_by_itself_and_counted_once(trunk_folder):
    rows = rows_of(trunk_folder("t5"), InputFormat("encoder_decoder", 0), 6)
    packed, cut = rows.encode_packed([(PROMPT * 5, RESPONSE * 5), ("a", "b"), (PROMPT * 5, "b")])
    assert cut == 2
    assert packed.lengths.tolist() == [6, 3, 3]
    assert packed.context.lengths.tolist() == [6, 2, 6]
    assert packed.context.ids[5] == packed.ids[5] == rows.tokenizer.eos_token_id
    whole = rows.tokenizer(PROMPT * 5, add_special_tokens=False)["input_ids"]
    assert packed.context.ids[:5].tolist() == whole[-5:]


def test_packed_tokens_know_where_responses_begin_on_every_device(trunk_folder):
    rows = rows_of(trunk_folder("bert"), InputFormat("encoder", typed=True))
    packed, _ = rows.encode_packed([(PROMPT, RESPONSE), ("", "a")])
    assert packed.response_start.tolist() == [len(rows.encode(text).before) for text in [(PROMPT, RESPONSE), ("", "a")]]
    moved = packed.to("meta")
    assert moved.response_start.device.type == moved.types.device.type == "meta"
    two, _ = rows_of(trunk_folder("t5"), InputFormat("encoder_decoder", 0)).encode_packed([("a", "b")])
    assert two.to("meta").context.ids.device.type == "meta"


def test_an_encoder_decoder_that_names_no_start_is_refused(trunk_folder):
    with pytest.raises(ConfigError, match="decoder_start_token_id"):
        rows_of(trunk_folder("t5"), InputFormat("encoder_decoder")).encode(("a", "b"))
