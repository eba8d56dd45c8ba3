"""Tokens taken out and put together: as if the text had been laid out so from the start."""

from __future__ import annotations

import torch

from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.variants import concat, score_batches, token_count, without


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
    monkeypatch.setattr("rlhf_lightning.reward.explain.variants.BUDGET", 5)
    sizes = []

    def model(tokens: PackedTokens) -> torch.Tensor:
        sizes.append(len(tokens))
        return torch.stack([part.float().sum() for part in tokens.ids.split(tokens.lengths.tolist())])

    assert score_batches(model, [text(row) for row in rows], torch.device("cpu")).tolist() == [18.0, 8.0, 18.0]
    assert sizes == [2, 1]
    assert score_batches(model, [], torch.device("cpu")).tolist() == []
