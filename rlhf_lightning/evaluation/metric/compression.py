"""The length of a response beside its prompt's."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Rollout, prompt_text
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register


@register("evaluation_metric", "compression")
def compression(task: Task, rollout: Rollout) -> Tensor:
    """Words of the response per word of the prompt, [B]; much less than 1 for a summary."""
    texts = zip(rollout.prompts, rollout.responses, strict=True)
    return torch.tensor([len(response.split()) / max(1, len(prompt_text(prompt).split())) for prompt, response in texts])
