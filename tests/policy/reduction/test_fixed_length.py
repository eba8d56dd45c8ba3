from __future__ import annotations

import torch

from rlhf_lightning.policy.reduction.fixed_length import fixed_length


def test_the_sum_is_divided_by_rows_times_length() -> None:
    per_token = torch.tensor([[1.0, 2.0, 3.0], [7.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert fixed_length(per_token, mask, length=10) == torch.tensor(13.0) / 30
    assert fixed_length(per_token[:, :0], mask[:, :0], length=10) == 0
