"""A text as a model reads it: which tokens are words of the prompt, of the response, and of neither."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Message
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.view import PlainView, TokenView, concat, score_batches, token_count, without
from rlhf_lightning.reward.regression.feature_score import FeatureScore

TEXT = ("The lamp:", " a good lamp, it isn't bad — 良い.")
CHAT = (Message(role="user", content="A 良 lamp?"), Message(role="assistant", content="Yes."), Message(role="user", content="Why?"))


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_every_token_is_a_word_s_or_fixed(family_model, family):
    model = family_model(family)
    view = TokenView(model, TEXT)
    held = sorted(token for word in view.words for token in word.tokens)
    assert held == (~view.fixed).nonzero().flatten().tolist()
    assert (view.prompt, view.response) == TEXT
    told = {"prompt": "", "response": ""}
    for word in view.words:
        told[word.part] += getattr(view, word.part)[word.start : word.end]
    assert told == {"prompt": TEXT[0].replace(" ", ""), "response": TEXT[1].replace(" ", "")}
    assert not view.is_truncated


def test_a_chat_is_shown_as_its_template_writes_it_and_its_marks_are_fixed(table_model):
    model = table_model()
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|end|>' }}{% endfor %}"
    try:
        view = TokenView(model, (CHAT, " good"))
    finally:
        model.tokenizer.chat_template = None
    assert view.prompt == "user: A 良 lamp?<|end|>assistant: Yes.<|end|>user: Why?<|end|>"
    assert int(view.fixed.sum()) == 4
    said = [getattr(view, word.part)[word.start : word.end] for word in view.words]
    assert said[-1] == "good"
    assert "Yes" in said
    assert "<|end|>" not in "".join(said)
    held = sorted(token for word in view.words for token in word.tokens)
    assert held == (~view.fixed).nonzero().flatten().tolist()


def test_what_was_cut_has_no_words(table_model):
    model = table_model()
    model.max_length = 20
    view = TokenView(model, ("The prompt is long and its beginning is lost. " * 3, " a good lamp."))
    assert view.is_truncated
    assert model.truncated == 0, "looking at a text isn't scoring it"
    held = sorted(token for word in view.words for token in word.tokens)
    assert held == (~view.fixed).nonzero().flatten().tolist()
    assert [view.response[word.start : word.end] for word in view.words if word.part == "response"] == ["a", "good", "lamp", "."]


@pytest.mark.parametrize("how", ["remove", "replace"])
def test_scores_without_words_are_those_of_the_table(table_model, how):
    model = table_model()
    view = TokenView(model, TEXT)
    table = model.net.table.weight.detach()[:, 0]
    whole, end = float(table[view.tokens.ids].sum()), float(table[model.tokenizer.eos_token_id])
    groups = [[0], [1, 3], list(range(len(view.words))), []]
    expected = []
    for group in groups:
        gone = [token for word in group for token in view.words[word].tokens]
        expected.append(whole - float(table[view.tokens.ids[gone]].sum()) + (end * len(gone) if how == "replace" else 0.0))
    assert view.scores_without(groups, how).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
def test_beginnings_are_scored_as_responses_of_their_own(family_model, family):
    model = family_model(family)
    view = TokenView(model, ("The lamp:", " a good lamp"))
    answers = ["", " a", " a good", " a good lamp"]
    expected = model.score_texts(["The lamp:"] * 4, answers)
    assert torch.allclose(view.scores_until([0, 1, 2, 3]), expected, atol=1e-5)
    assert expected.std() > 1e-3


def test_a_slow_tokenizer_is_refused(table_model):
    from types import SimpleNamespace

    model = table_model()
    model.tokenizer = SimpleNamespace(is_fast=False)
    with pytest.raises(ConfigError, match=r"needs a fast tokenizer, save the model with its tokenizer\.json"):
        TokenView(model, TEXT)


def test_a_features_model_reads_the_text_without_the_words_and_the_blanks_before_them():
    score = FeatureScore({"length": {}})
    score.prepare([("p", "a"), ("p", "a good lamp"), ("pq", "abc def")])
    score.weight = score.weight + 1.0
    view = PlainView(score, (CHAT[2:], "a good lamp."))
    assert view.prompt == "User: Why?\nAssistant:"
    names = [getattr(view, word.part)[word.start : word.end] for word in view.words]
    good, a = names.index("good"), len(names) - 4
    assert names[a:] == ["a", "good", "lamp", "."]
    found = view.scores_without([[good], [a, good], [0, 1]], "remove")
    expected = score.score_texts([view.prompt, view.prompt, "Why?\nAssistant:"], ["a lamp.", "lamp.", "a good lamp."])
    assert torch.equal(found, expected)
    assert torch.equal(view.scores_until([0, 2, 4]), score.score_texts([view.prompt] * 3, ["", "a good", "a good lamp."]))


def text(ids: list[int], start: int = 2, context: list[int] | None = None) -> PackedTokens:
    read = None if context is None else PackedTokens.of([context])
    return PackedTokens.of([ids], [start], [[i % 2 for i in range(len(ids))]], read)


def same(a: PackedTokens, b: PackedTokens) -> bool:
    pairs = [(a.ids, b.ids), (a.lengths, b.lengths), (a.response_start, b.response_start), (a.types, b.types)]
    equal = all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)
    return equal and (a.context is None) == (b.context is None) and (a.context is None or same(a.context, b.context))


def test_removed_tokens_leave_their_types_and_move_the_response():
    left = without(text([5, 6, 7, 8]), [0, 2])
    assert same(left, PackedTokens.of([[6, 8]], [1], [[1, 1]]))


def test_replaced_tokens_keep_their_places():
    left = without(text([5, 6, 7, 8]), [0, 2], filler=9)
    assert same(left, PackedTokens.of([[9, 6, 9, 8]], [2], [[0, 1, 0, 1]]))


def test_the_context_is_counted_first():
    whole = text([5, 6], 1, context=[1, 2, 3])
    assert token_count(whole) == 5
    left = without(whole, [1, 4])
    assert left.context.ids.tolist() == [1, 3]
    assert left.ids.tolist() == [5]


def test_a_row_never_becomes_empty():
    left = without(text([5, 6], 1, context=[1]), [0, 1, 2])
    assert left.context.ids.tolist() == [0]
    assert left.ids.tolist() == [0, 0]


def test_a_batch_is_its_texts_and_scores_come_back_in_order(monkeypatch):
    rows = [[5, 6, 7], [8], [9, 9]]
    batch = concat([text(row, 1, context=row[::-1]) for row in rows])
    assert same(batch, PackedTokens.of(rows, [1, 1, 1], [[0, 1, 0], [0], [0, 1]], PackedTokens.of([row[::-1] for row in rows])))
    monkeypatch.setattr("rlhf_lightning.reward.explain.view.BUDGET", 5)
    sizes = []

    def model(tokens: PackedTokens) -> torch.Tensor:
        sizes.append(len(tokens))
        return torch.stack([part.float().sum() for part in tokens.ids.split(tokens.lengths.tolist())])

    assert score_batches(model, [text(row) for row in rows], torch.device("cpu")).tolist() == [18.0, 8.0, 18.0]
    assert sizes == [2, 1]
    assert score_batches(model, [], torch.device("cpu")).tolist() == []
