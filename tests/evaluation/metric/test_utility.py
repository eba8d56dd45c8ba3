"""The task's utility of each prompt with its response."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.evaluation.metric.utility import utility
from rlhf_lightning.task.reviews import Reviews


def test_utility_is_the_tasks_own(scored_of):
    task = Reviews()
    prompts = ["Review of a kettle for a student:\n", "Review of a phone bought used:\n"]
    responses = ["It is ready fast. It costs very little.", "It is ready fast. It costs very little."]
    found = utility(task, scored_of(torch.ones(2, 2), prompts=prompts, responses=responses))
    assert found.tolist() == pytest.approx([1.0, -0.6])
    assert found.tolist() == pytest.approx([task.utility(*pair) for pair in zip(prompts, responses, strict=True)])
