from __future__ import annotations

import torch

from rlhf_lightning.policy.reduction.sequence_sum import sequence_sum


def test_the_sums_of_the_responses_with_tokens_are_averaged() -> None:
    per_token = torch.tensor([[1.0, 2.0, 3.0], [7.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
    assert sequence_sum(per_token, torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])) == 6.5
