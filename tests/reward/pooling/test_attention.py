"""A learned mean over the tokens."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.pooling.attention import AttentionPooling
from rlhf_lightning.reward.pooling.mean import mean

HIDDEN = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])


def asking(seed: int = 1) -> AttentionPooling:
    pooling = AttentionPooling(5)
    with torch.no_grad():
        pooling.query.copy_(torch.randn(5, generator=torch.Generator().manual_seed(seed)))
    return pooling


def test_it_starts_as_the_mean_and_can_leave_it():
    pooling = AttentionPooling(5)
    assert torch.allclose(pooling(HIDDEN, MASK), mean(HIDDEN, MASK), atol=1e-6)
    pooling(HIDDEN, MASK).square().sum().backward()
    assert pooling.query.grad.any()


def test_it_is_the_softmax_s_mean_by_hand():
    pooling = asking()
    for row, mask, found in zip(HIDDEN, MASK, pooling(HIDDEN, MASK), strict=True):
        tokens = [h for h, inside in zip(row, mask, strict=True) if inside]
        shares = [math.exp(float(h @ pooling.query.detach()) / math.sqrt(5)) for h in tokens]
        expected = sum(share / sum(shares) * h for share, h in zip(shares, tokens, strict=True))
        assert torch.allclose(found, expected, atol=1e-6)
    weights = pooling.weights(HIDDEN, MASK)
    assert torch.allclose(weights.sum(1), torch.ones(3))
    assert not weights[MASK == 0].any()


@pytest.mark.parametrize("pooling", [asking(), AttentionPooling(5)])
def test_padding_is_not_read_and_no_tokens_give_0(pooling):
    padded = torch.nn.functional.pad(HIDDEN, (0, 0, 2, 3), value=100.0)
    assert torch.allclose(pooling(padded, torch.nn.functional.pad(MASK, (2, 3))), pooling(HIDDEN, MASK), atol=1e-5)
    assert torch.equal(pooling(HIDDEN, 0 * MASK), torch.zeros(3, 5))
