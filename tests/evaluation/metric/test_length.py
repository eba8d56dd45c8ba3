"""Length in tokens."""

from __future__ import annotations

import torch

from rlhf_lightning.evaluation.metric.length import length
from rlhf_lightning.task.reviews import Reviews


def test_length_counts_the_tokens_of_the_mask(scored_of):
    found = length(Reviews(), scored_of(torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])))
    assert found.tolist() == [3.0, 1.0, 0.0]
    assert found.dtype == torch.float32
