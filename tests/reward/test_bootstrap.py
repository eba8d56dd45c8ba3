"""What each member of an ensemble learns from."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.bootstrap import bootstrap_batches, poisson_counts, text_keys


def test_draws_are_poisson_and_independent_of_each_other():
    size = 200_000
    drawn = poisson_counts(torch.arange(size), 3, seed=0)
    for member in drawn:
        for count in range(5):
            share = (member == count).float().mean().item()
            expected = math.exp(-1) / math.factorial(count)
            assert abs(share - expected) < 5 * math.sqrt(expected / size)
    between = torch.corrcoef(torch.cat([drawn, poisson_counts(torch.arange(size), 1, seed=1)]))
    assert (between - torch.eye(4)).abs().max() < 5 / math.sqrt(size)
    assert torch.equal(poisson_counts(torch.arange(9), 3, seed=0), drawn[:, :9])


def test_a_key_is_the_prompt_s_tokens():
    rows = [[1, 2, 3, 7, 8], [1, 2, 3, 9], [1, 3, 2, 7, 8], [1, 2, 7, 8], [2, 1, 3, 7]]
    keys = text_keys(PackedTokens.of(rows, [3, 3, 3, 2, 3])).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert text_keys(PackedTokens.of(rows[3:], [2, 3])).tolist() == keys[3:]  # whatever else is in the batch


def test_a_key_is_the_encoder_s_text_where_there_is_one():
    context = PackedTokens.of([[5, 6], [5, 6], [6, 5]])
    keys = text_keys(PackedTokens.of([[0, 1], [0, 2], [0, 1]], [1, 1, 1], context=context)).tolist()
    assert keys[0] == keys[1] != keys[2]


def test_every_kind_is_weighed_by_its_prompt_s_draw(batch_with):
    index = torch.tensor
    batch = batch_with(
        pairs={"better": index([0, 2]), "worse": index([1, 3]), "weight": torch.tensor([1.0, 3.0])},
        orders={"items": index([[2, 3, 2, -1]]), "levels": index([[0, 1, 2, -1]])},
        ratings={"item": index([3, 1]), "weight": torch.tensor([2.0, 2.0])},
        thumbs={"item": index([1])},
    )
    batch.tokens = PackedTokens.of([[1, 5], [1, 6], [2, 5], [2, 6]], [1, 1, 1, 1])
    members = list(bootstrap_batches(batch, 40, seed=3))
    drawn = poisson_counts(text_keys(batch.tokens), 40, seed=3)
    assert drawn[:, 0].tolist() != drawn[:, 2].tolist()
    for member, (one, _, two, _) in zip(members, drawn.tolist(), strict=True):
        assert member.pairs.weight.tolist() == [one, 3 * two]
        assert member.orders.weight.tolist() == [two]
        assert member.ratings.weight.tolist() == [2 * two, 2 * one]
        assert member.thumbs.weight.tolist() == [one]
        assert len(member.ties.weight) == 0
        assert torch.equal(member.ratings.item, batch.ratings.item)
    assert batch.pairs.weight.tolist() == [1.0, 3.0]
    again = bootstrap_batches(batch, 40, seed=3)
    assert all(torch.equal(a.pairs.weight, b.pairs.weight) for a, b in zip(members, again, strict=True))
    assert sum(m.pairs.weight[0].item() for m in members) / 40 == pytest.approx(1, abs=0.6)


def test_texts_are_drawn_where_prompts_tell_nothing(batch_with):
    batch = batch_with(ratings={"item": torch.arange(40)})
    batch.tokens = PackedTokens.of([[1, 5 + i] for i in range(40)], [1] * 40)
    by_prompt = next(bootstrap_batches(batch, 1, seed=0)).ratings.weight
    by_text = next(bootstrap_batches(batch, 1, seed=0, by_text=True)).ratings.weight
    assert len(set(by_prompt.tolist())) == 1
    assert len(set(by_text.tolist())) > 2
    assert by_text.mean().item() == pytest.approx(1, abs=0.5)
