"""Words and their tokens: every token in exactly one word, whatever the tokenizer does to characters."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.reward.explain.words import decode_with_offsets, plain_words, token_words

TOKENIZER = byte_level_bpe(["it's a good lamp, isn't it?"] * 4, 290)


def told(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    found = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]


def said(text: str, words) -> list[str]:
    return [text[word.start : word.end] for word in words]


def test_plain_words_are_words_marks_and_single_letters_where_there_are_no_blanks():
    text = "A good lamp, 良い灯!"
    assert said(text, plain_words("prompt", text)) == ["A", "good", "lamp", ",", "良", "い", "灯", "!"]


def test_a_token_over_two_words_joins_them_and_a_token_for_a_blank_is_a_word():
    text = "don't go\n\nnow"
    offsets = [(0, 2), (2, 5), (5, 8), (8, 10), (10, 13)]  # do | n't | _go | \n\n | now
    words = token_words("response", text, offsets, [7, 8, 9, 10, 11])
    assert said(text, words) == ["don't", "go", "\n\n", "now"]
    assert [word.tokens for word in words] == [(7, 8), (9,), (10,), (11,)]


def test_a_blank_with_a_token_of_its_own_belongs_to_the_next_word():
    words = token_words("response", " bad, bad ", [(0, 1), (1, 4), (4, 5), (5, 6), (6, 9), (9, 10)], range(6))
    assert said(" bad, bad ", words) == ["bad", ",", "bad"]
    assert [word.tokens for word in words] == [(0, 1), (2,), (3, 4, 5)]
    assert [word.tokens for word in token_words("response", "  ", [(0, 1), (1, 2)], [3, 4])] == [(3,), (4,)]


def test_tokens_without_characters_belong_to_the_next_and_at_the_end_to_the_last():
    words = token_words("prompt", "ab c", [(0, 0), (0, 2), (2, 2), (3, 4), (4, 4)], range(5))
    assert [word.tokens for word in words] == [(0, 1), (2, 3, 4)]


def test_what_the_model_does_not_read_has_no_words():
    assert said("one two three", token_words("response", "one two three", [(0, 3), (3, 7)], [0, 1])) == ["one", "two"]
    assert token_words("response", "one two", [], []) == []


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_token_is_in_exactly_one_word_and_words_do_not_overlap(text):
    _, offsets = told(text)
    words = token_words("response", text, offsets, range(len(offsets)))
    assert sorted(token for word in words for token in word.tokens) == list(range(len(offsets)))
    assert all(a.end <= b.start for a, b in pairwise(words))
    uncovered = "".join(c for i, c in enumerate(text) if not any(w.start <= i < w.end for w in words))
    assert not uncovered.strip()


@given(st.text(alphabet="ab é水🙂\n", max_size=20))
@settings(max_examples=60, deadline=None)
def test_decoded_gives_the_text_back_with_a_range_for_each_token(text):
    ids, offsets = told(text)
    again, ranges = decode_with_offsets(TOKENIZER, ids)
    assert again == text
    assert len(ranges) == len(ids)
    covered = [again[start:end] for start, end in ranges]
    assert "".join(covered) == text
    for (start, end), (own_start, own_end) in zip(offsets, ranges, strict=True):
        assert own_start == own_end or (start <= own_start and own_end <= end)
