"""The task's hidden utility of a response."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Rollout
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register


@register("evaluation_metric", "utility")
def utility(task: Task, rollout: Rollout) -> Tensor:
    """The task's hidden utility, [B]; left out if the task has none."""
    return torch.tensor([task.utility(p, r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)])
