"""The length of responses, a common bias of reward models."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.flow import Rollout
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register


@register("evaluation_metric", "length")
def length(task: Task, rollout: Rollout) -> Tensor:
    """Response length in tokens, end-of-text included, [B]."""
    return rollout.response_mask.sum(1).float()
