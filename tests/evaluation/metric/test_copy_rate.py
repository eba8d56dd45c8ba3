"""Copied 4-grams, by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rlhf_lightning.evaluation.metric.copy_rate import copy_rate
from rlhf_lightning.task.reviews import Reviews

PROMPT = "the quick brown fox jumps over the lazy dog"


def test_copy_rate_is_the_share_of_four_grams_of_the_prompt(scored_of):
    responses = [PROMPT, "a slow red cat sleeps here", "the quick brown fox sleeps", "lazy dog", "dog lazy", ""]
    rollout = dataclasses.replace(scored_of(torch.ones(6, 3, dtype=torch.long)), prompts=[PROMPT] * 6, responses=responses)
    assert copy_rate(Reviews(), rollout).tolist() == pytest.approx([1.0, 0.0, 0.5, 1.0, 0.0, 0.0])
