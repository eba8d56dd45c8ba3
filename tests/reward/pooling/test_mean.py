"""The mean over the tokens, wherever the padding is."""

from __future__ import annotations

import torch

from rlhf_lightning.reward.pooling.mean import mean

LENGTHS = [1, 4, 6, 3]


def test_right_and_left_padding_give_the_mean_of_the_tokens():
    hidden = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    right = torch.tensor([[1] * n + [0] * (6 - n) for n in LENGTHS])
    expected = torch.stack([hidden[i, :n].mean(0) for i, n in enumerate(LENGTHS)])
    rolled = torch.stack([hidden[i].roll(6 - n, 0) for i, n in enumerate(LENGTHS)])
    for mask in (right, right.bool()):
        assert torch.allclose(mean(hidden, mask), expected, atol=1e-6)
        assert torch.allclose(mean(rolled, mask.flip(1)), expected, atol=1e-6)


def test_a_row_without_tokens_is_zero():
    assert torch.equal(mean(torch.ones(1, 3, 2), torch.zeros(1, 3)), torch.zeros(1, 2))
