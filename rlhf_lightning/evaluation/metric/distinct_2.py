"""The variety of responses."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from rlhf_lightning.flow import Rollout
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register


@register("evaluation_metric", "distinct_2")
def distinct_2(task: Task, rollout: Rollout) -> Tensor:
    """Share of distinct word pairs within each response, [B] (Li et al. 2016); low for repetitions."""
    return torch.tensor([_distinct(text.split()) for text in rollout.responses])


def _distinct(words: list[str]) -> float:
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0
