"""A value for each token of the response."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.head.token import TokenHead

HIDDEN = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
LENGTHS, STARTS = [5, 3, 2], [2, 1, 2]
MASK = (torch.arange(5) < torch.tensor(LENGTHS)[:, None]).long()
RESPONSE = MASK * (torch.arange(5) >= torch.tensor(STARTS)[:, None])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_score_is_the_mean_or_sum_of_the_response_s_values(reduction):
    head = TokenHead(7, reduction=reduction)
    w = head.value.weight.weight[0].detach()
    scored = head(HIDDEN, MASK, RESPONSE)
    packed = []
    for u, (length, start) in enumerate(zip(LENGTHS, STARTS, strict=True)):
        values = [float(HIDDEN[u, t] @ w) for t in range(start, length)]
        expected = sum(values) / (max(1, len(values)) if reduction == "mean" else 1)
        assert scored.scores[u].item() == pytest.approx(expected, abs=1e-5)
        packed += [0.0] * start + values
    assert scored.tokens.tolist() == pytest.approx(packed, abs=1e-5)
    assert scored.scores[2].item() == 0  # the last text has no response


def test_nothing_outside_the_response_is_read():
    head = TokenHead(7)
    changed = torch.where(RESPONSE[:, :, None].bool(), HIDDEN, 100.0)
    assert torch.equal(head(changed, MASK, RESPONSE).scores, head(HIDDEN, MASK, RESPONSE).scores)
    assert torch.equal(head(changed, MASK, RESPONSE).tokens, head(HIDDEN, MASK, RESPONSE).tokens)


def test_values_and_scores_both_train_w():
    head = TokenHead(7)
    scored = head(HIDDEN, MASK, RESPONSE)
    for said, expected in (
        (scored.tokens.sum(), (HIDDEN * RESPONSE[:, :, None]).sum((0, 1))),
        (scored.scores.sum(), (HIDDEN * RESPONSE[:, :, None] / RESPONSE.sum(1).clamp(min=1)[:, None, None]).sum((0, 1))),
    ):
        (found,) = torch.autograd.grad(said, head.value.weight.weight, retain_graph=True)
        assert torch.allclose(found[0], expected, atol=1e-5)


def test_w_starts_at_the_published_deviation():
    torch.manual_seed(0)
    assert TokenHead(9999).value.weight.weight.std().item() == pytest.approx(1 / math.sqrt(10_000), rel=0.05)
