from __future__ import annotations

import torch

from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean


def test_every_response_with_tokens_weighs_the_same() -> None:
    per_token = torch.tensor([[1.0, 2.0, 3.0], [6.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
    assert sequence_mean(per_token, torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])) == 4.0
