"""The first token."""

from __future__ import annotations

import torch

from rlhf_lightning.reward.pooling.cls import cls


def test_it_is_the_first_token_of_either_padding():
    hidden = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0]])
    assert torch.equal(cls(hidden, mask), torch.stack([hidden[0, 0], hidden[1, 2], hidden[2, 1]]))
