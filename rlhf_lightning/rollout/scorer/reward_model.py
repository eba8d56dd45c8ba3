"""Scores from a trained reward model."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.backbone.language_model import frozen
from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.reward.model import load_reward_model


@register("rollout_scorer", "reward_model")
class RewardModelScorer:
    """A reward model from stage=reward, or any AutoModelForSequenceClassification with one label, by folder or Hub name.

    Responses go through text, so that policy and reward model may have different tokenizers.
    """

    def __init__(self, *, path: str) -> None:
        self.model = load_reward_model(path)
        frozen(self.model)

    def __call__(self, rollout: Rollout) -> Tensor:
        """Normalised scores [B], without autocast: a frozen model costs little and its scores stay comparable between runs."""
        device = rollout.prompt_ids.device
        self.model.to(device)
        with torch.autocast(device.type, enabled=False):
            return self.model.score_texts(rollout.prompts, rollout.responses)
