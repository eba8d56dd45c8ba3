"""Different word pairs."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.evaluation.metric.distinct_2 import distinct_2
from rlhf_lightning.task.reviews import Reviews


def test_the_share_of_different_pairs_within_each_response(scored_of):
    responses = ["a b c d", "a b a b a", "no no no", "two\nwords", "one", ""]
    found = distinct_2(Reviews(), scored_of(torch.ones(6, 2), responses=responses))
    assert found.tolist() == pytest.approx([1.0, 2 / 4, 1 / 2, 1.0, 1.0, 1.0])
