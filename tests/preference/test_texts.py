"""The table of texts: the rows of TextEncoder, each once, and nothing that is cut."""

from __future__ import annotations

import pytest

from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.preference.texts import TOO_LONG, TextTable

TEXTS = [("It", " costs"), ("The kettle", ""), ("", "A quiet fan"), ("It", " costs"), ("It", " is")]


def test_a_text_has_one_place_and_its_rows_are_those_of_the_text_encoder(either_tokenizer):
    tokenizer = either_tokenizer.tokenizer
    table = TextTable(tokenizer, 64)
    places = [table.row_of(text) for text in TEXTS]
    assert places == [0, 1, 2, 0, 3]
    assert len(table) == 4
    wanted, _ = TextEncoder(tokenizer, InputFormat(), 64).encode_packed([TEXTS[4], TEXTS[0]])
    packed = table.pack([3, 0])
    for name in ("ids", "lengths", "response_start"):
        assert getattr(packed, name).tolist() == getattr(wanted, name).tolist()
    assert [table.length(3), table.length(0)] == wanted.lengths.tolist()
    assert len(table.pack([])) == 0


def test_the_tokens_of_an_answer_are_those_that_something_predicts(language_model):
    from rlhf_lightning.model.response_log_probs import response_log_probs

    table = TextTable(language_model.tokenizer, 64)
    places = [table.row_of(text) for text in dict.fromkeys(TEXTS)]
    assert [table.response_length(place) for place in places] == response_log_probs(language_model, table.pack(places))[1].tolist()


@pytest.mark.parametrize("limit", [5, 8])
def test_what_would_be_cut_is_left_out_and_counted_once(language_model, limit):
    table = TextTable(language_model.tokenizer, limit)
    long = ("It", " costs" * 20)
    assert [table.row_of(long), table.row_of(("It", " costs")), table.row_of(long)] == [TOO_LONG, 0, TOO_LONG]
    assert (len(table), table.too_long) == (1, 1)
