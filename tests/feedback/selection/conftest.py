"""Pools of three prompts with two responses, for a linear model and for an ensemble."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.interfaces import SelectionPool

FEATURES = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
GROUPS = [("p", ["a", "b"]), ("q", ["c", "d"]), ("r", ["e", "f"])]


@pytest.fixture
def linear() -> SelectionPool:
    """Pairs of deviations 2, 1 and 0.5, and of scores 0.2, 5 and 2.5."""
    return SelectionPool(groups=GROUPS, features=FEATURES, scores=FEATURES @ torch.tensor([0.1, 5.0], dtype=torch.float64))


@pytest.fixture
def ensemble() -> SelectionPool:
    """Two members that agree about the second pair and contradict each other about the first."""
    members = torch.tensor([[1.0, 0, 2, 0, 9, 0], [-1.0, 0, 2, 0, 8, 0]], dtype=torch.float64)
    return SelectionPool(groups=GROUPS, features=FEATURES, scores=members.mean(0), members=members)
