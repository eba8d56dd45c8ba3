from __future__ import annotations

import torch

from rlhf_lightning.policy.reduction.token_mean import token_mean


def test_every_token_weighs_the_same() -> None:
    assert token_mean(torch.tensor([[1.0, 2.0, 3.0], [6.0, 99.0, 99.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])) == 3.0
