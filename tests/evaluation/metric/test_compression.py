"""Words of a response per word of its prompt."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rlhf_lightning.evaluation.metric.compression import compression
from rlhf_lightning.task.reviews import Reviews


def test_compression_counts_words(scored_of):
    rollout = dataclasses.replace(
        scored_of(torch.ones(3, 3, dtype=torch.long)), prompts=["one two three four"] * 2 + [""], responses=["one two", "", "a b"]
    )
    assert compression(Reviews(), rollout).tolist() == pytest.approx([0.5, 0.0, 2.0])
