"""The last token, wherever the padding is."""

from __future__ import annotations

import torch

from rlhf_lightning.reward.pooling.last import last

LENGTHS = [1, 4, 6, 3]


def test_right_and_left_padding_give_the_last_token():
    hidden = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    right = torch.tensor([[1] * n + [0] * (6 - n) for n in LENGTHS])
    expected = torch.stack([hidden[i, n - 1] for i, n in enumerate(LENGTHS)])
    rolled = torch.stack([hidden[i].roll(6 - n, 0) for i, n in enumerate(LENGTHS)])
    for mask in (right, right.bool()):
        assert torch.equal(last(hidden, mask), expected)
        assert torch.equal(last(rolled, mask.flip(1)), expected)


def test_the_gradient_reaches_that_token_alone():
    hidden = torch.zeros(2, 3, 2, requires_grad=True)
    last(hidden, torch.tensor([[1, 1, 0], [0, 1, 1]])).sum().backward()
    assert hidden.grad[:, :, 0].tolist() == [[0, 1, 0], [0, 0, 1]]
