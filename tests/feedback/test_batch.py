"""One batch for all kinds: every judgement found again by its texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from rlhf_lightning.feedback.batch import JudgementBatch, collate
from rlhf_lightning.feedback.judgements import PromptResponse, standardise
from rlhf_lightning.feedback.standardise import edit_spans
from rlhf_lightning.flow import Comment, Edit, Feedback, Message, Prompt, Ranking, Rating, SpanLabel, Spans, Thumbs
from rlhf_lightning.model.packing import PackedTokens


def ranked(
    prompt: Prompt,
    texts: Sequence[str],
    ranks: Sequence[int | None],
    margin: float | None = None,
    weight: float = 1.0,
    all_bad: bool = False,
) -> Feedback:
    judgement = Ranking(ranks=tuple(ranks), margin=margin, all_bad=all_bad)
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=judgement, weight=weight)


def edited(prompt: str, before: str, after: str, weight: float = 1.0) -> Feedback:
    return Feedback(prompt=prompt, responses=(before, after), judgement=Edit(), weight=weight)


def about(prompt: str, text: str, judgement: Rating | Thumbs | Spans | Comment, who: str | None = None, weight: float = 1.0) -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=judgement, annotator=who, weight=weight)


def rated(prompt: str, text: str, value: float, annotator: str | None = None, weight: float = 1.0, aspect: str | None = None) -> Feedback:
    return about(prompt, text, Rating(value=value, scale=(0, 10), aspect=aspect), annotator, weight)


class Words:
    """One token for each word of prompt and response; id 7 ends a text."""

    def __init__(self) -> None:
        self.asked: list[PromptResponse] = []

    def tokenise(self, texts: Sequence[PromptResponse]) -> PackedTokens:
        self.asked += texts
        return PackedTokens.of([[*map(len, str(prompt).split()), *map(len, response.split()), 7] for prompt, response in texts])

    def response_offsets(self, text: PromptResponse) -> tuple[int, list[tuple[int, int]]]:
        return len(str(text[0]).split()), [match.span() for match in re.finditer(r"\S+", text[1])]


def collated(records: Sequence[Feedback], spans: bool = False) -> tuple[JudgementBatch, list[PromptResponse]]:
    """The batch, and the texts that it tokenised."""
    words = Words()
    return collate(standardise(records), words, spans=spans), words.asked


RECORDS = [
    ranked("p", ["a", "b"], [1, 0], margin=2.5, weight=0.5),
    edited("p", "b", "c", weight=2.0),
    ranked("p", ["a", "c", "d"], [5, -1, 5], weight=3.0),
    rated("p", "a", 7, weight=0.25),
    rated("q", "a", 1, "ann", aspect="style"),
    ranked("q", ["x", "y", "a", "z"], [3, None, 1, 0]),
    ranked("q", ["x", "y"], [4, 4], weight=0.75),
    about("q", "y", Thumbs(up=True), "bob", 1.5),
    about("q", "z", Thumbs(up=False), "ann"),
]


def test_each_distinct_response_is_there_once_and_every_judgement_points_at_its_own() -> None:
    batch, texts = collated(RECORDS)
    assert texts == [("p", "a"), ("p", "b"), ("p", "c"), ("p", "d"), ("q", "a"), ("q", "x"), ("q", "y"), ("q", "z")]
    assert batch.tokens.lengths.tolist() == [3] * 8
    pairs = batch.pairs
    assert [(texts[i], texts[j]) for i, j in zip(pairs.better, pairs.worse, strict=True)] == [
        (("p", "b"), ("p", "a")), (("p", "c"), ("p", "b")),
    ]  # fmt: skip
    assert (pairs.weight.tolist(), pairs.margin.tolist(), pairs.annotator.tolist()) == ([0.5, 2.0], [2.5, 0.0], [0, 0])
    assert [[texts[i][1] if i >= 0 else None for i in order] for order in batch.orders.items.tolist()] == [["a", "c", "d", None], [*"xyaz"]]
    assert batch.orders.levels.tolist() == [[1, 0, 1, -1], [2, -1, 1, 0]]
    assert batch.orders.weight.tolist() == [3.0, 1.0]
    ratings = batch.ratings
    assert [texts[i] for i in ratings.item.tolist()] == [("p", "a"), ("q", "a")]
    assert ratings.z_score.tolist() == [0, 0]  # one of each aspect: nothing to compare it with
    assert ratings.unit.tolist() == pytest.approx([0.7, 0.1])
    assert (ratings.aspect.tolist(), ratings.annotator.tolist(), ratings.weight.tolist()) == ([0, 1], [0, 1], [0.25, 1.0])
    assert [(texts[i], texts[j]) for i, j in zip(batch.ties.first, batch.ties.second, strict=True)] == [(("q", "x"), ("q", "y"))]
    assert batch.ties.weight.tolist() == [0.75]
    assert [texts[i] for i in batch.thumbs.item] == [("q", "y"), ("q", "z")]
    assert (batch.thumbs.up.tolist(), batch.thumbs.weight.tolist(), batch.thumbs.annotator.tolist()) == ([1, 0], [1.5, 1], [2, 1])
    assert len(batch) == 9


def test_a_judgement_without_information_adds_nothing() -> None:
    said_nothing = [
        edited("p", "a", "a"),
        ranked("p", ["a", "a"], [0, 1]),
        ranked("p", ["a", "a"], [0, 0]),
        ranked("p", ["a", "b"], [0, None]),
        ranked("p", ["a", "b"], [None, None]),
        ranked("p", ["a", "b", "c"], [1, 1, 1]),
        ranked("p", ["a", "b", "c"], [1, None, None]),
        ranked("p", ["a", "a", "a"], [0, 1, 2]),
        about("p", "a", Spans(spans=())),
        about("p", "a", Comment(text="good")),
    ]
    batch, _ = collated(said_nothing, spans=True)
    assert len(batch) == len(batch.spans) == 0
    assert (batch.pairs.better.shape, batch.orders.items.shape, batch.orders.levels.shape) == ((0,), (0, 0), (0, 0))
    assert batch.pairs.better.dtype == batch.orders.items.dtype == batch.ratings.item.dtype == torch.long
    assert batch.pairs.weight.dtype == batch.thumbs.up.dtype == torch.float32
    assert len(batch.tokens) == 3  # a batch that says nothing can still be scored
    full, empty = collated([*RECORDS, *said_nothing])[0], collated(RECORDS)[0]
    for kind in ("pairs", "ties", "orders", "ratings", "thumbs"):
        for name, column in vars(getattr(empty, kind)).items():
            assert torch.equal(getattr(getattr(full, kind), name), column)


def test_what_is_all_bad_gets_a_thumb_down_each_beside_its_order() -> None:
    batch, texts = collated(
        [ranked("p", ["a", "b"], [0, 0], all_bad=True), ranked("q", ["x", "y", "z"], [0, 1, 2], weight=2, all_bad=True)]
    )
    assert (len(batch.ties), len(batch.orders), len(batch.pairs)) == (1, 1, 0)
    assert [texts[i] for i in batch.thumbs.item] == [("p", "a"), ("p", "b"), ("q", "x"), ("q", "y"), ("q", "z")]
    assert batch.thumbs.up.tolist() == [0] * 5
    assert batch.thumbs.weight.tolist() == [1, 1, 2, 2, 2]


def test_chats_and_texts_stand_in_one_batch() -> None:
    said = (Message(role="user", content="p"),)
    batch, texts = collated([ranked("p", ["a", "b"], [0, 1]), ranked(said, ["a", "b"], [1, 0]), ranked(said, ["b", "c"], [1, 0])])
    assert texts == [("p", "a"), ("p", "b"), (said, "a"), (said, "b"), (said, "c")]
    assert list(zip(batch.pairs.better.tolist(), batch.pairs.worse.tolist(), strict=True)) == [(0, 1), (3, 2), (4, 3)]


TEXT = "The kettle boils very slowly indeed"


def marks(*spans: tuple[int, int, float]) -> Spans:
    return Spans(spans=tuple(SpanLabel(start=a, end=b, value=value) for a, b, value in spans))


def test_marked_stretches_are_the_tokens_that_they_touch() -> None:
    record = about("of a lamp", TEXT, marks((0, 10, 0.5), (12, 21, -1), (17, 18, 1), (10, 11, -1)), "ann", 3.0)
    batch, _ = collated([rated("of a lamp", "x", 1), record], spans=True)
    spans = batch.spans
    assert spans.item.tolist() == [1, 1, 1]
    # Three words of the prompt come first; a blank between words belongs to no token and adds nothing.
    found = list(zip(spans.start.tolist(), spans.end.tolist(), spans.value.tolist(), strict=True))
    assert found == [(3, 5, 0.5), (5, 7, -1), (6, 7, 1)]
    assert spans.weight.tolist() == [1.0] * 3  # they share the judgement's
    assert spans.annotator.tolist() == [1] * 3
    assert len(batch) == 1


def test_what_an_edit_took_out_is_bad_and_what_it_put_in_is_good() -> None:
    before, after = "It is a bad lamp", "It is a very good lamp"
    batch, texts = collated([edited("p", before, after, weight=4.0)], spans=True)
    words = {0: before.split(), 1: after.split()}
    rows = zip(*(getattr(batch.spans, name).tolist() for name in ("item", "start", "end", "value")), strict=True)
    assert texts == [("p", before), ("p", after)]
    assert [(item, " ".join(words[item][start - 1 : end - 1]), value) for item, start, end, value in rows] == [
        (0, "bad", -1), (1, "very good", 1),
    ]  # fmt: skip
    assert batch.spans.weight.sum() == 4.0
    assert len(edit_spans(before, after)) > 0
    assert len(batch.pairs) == 1
    inserted, _ = collated([edited("p", "It is", "It is good")], spans=True)
    assert (inserted.spans.item.tolist(), inserted.spans.value.tolist()) == ([1], [1.0])
    assert len(collated([edited("p", before, after)])[0].spans) == 0  # not asked for


def test_moving_a_batch_moves_every_tensor() -> None:
    batch = collated([*RECORDS, edited("p", "a b", "a c")], spans=True)[0]
    moved = batch.to("meta")
    devices = {tensor.device.type for part in vars(moved).values() for tensor in vars(part).values() if tensor is not None}
    assert devices == {"meta"}
    assert batch.pairs.better.device.type == "cpu"
    assert len(moved) == len(batch)
