"""Scores from a trained reward model."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from rlhf_lightning.backbone.kernels import use_fast_kernels
from rlhf_lightning.backbone.language_model import frozen
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer.scorer import Scorer
from rlhf_lightning.schema import ModelPath


@register("rollout_scorer", "reward_model")
class RewardModelScorer:
    """A reward model from stage=reward, or any AutoModelForSequenceClassification with one label, by folder or Hub name.

    Responses go through text, so that policy and reward model may have different tokenizers. When it is loaded, a few texts are held to
    their scores alone and to those in the folder (reward.canary). A features model (reward_head=features) scores on the CPU.

    Raises:
        DataError: no such folder, or scores that padding, a wrong tokenizer or wrong weights have changed.
    """

    def __init__(self, *, path: ModelPath) -> None:
        # huggingface_hub, which the model is built on, takes a third of a second that the menu hasn't.
        from rlhf_lightning.reward.canary import check_canary
        from rlhf_lightning.reward.features import FeatureScore
        from rlhf_lightning.reward.folder import load_any_reward_model

        self.model = load_any_reward_model(path)
        use_fast_kernels(frozen(self.model))
        self.device = torch.device("cpu")
        if not isinstance(self.model, FeatureScore):
            check_canary(self.model, self.score, path)

    def __call__(self, rollout: Rollout) -> Tensor:
        """Normalised scores [B]."""
        self.device = rollout.prompt_ids.device
        self.model.to(self.device)
        return self.score(rollout.prompts, rollout.responses)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores [B], without autocast: a frozen model costs little and its scores stay comparable between runs."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model.score_texts(prompts, responses)


def scorer_shared_out(scorer: Scorer, mesh: DeviceMesh) -> Scorer:
    """A scorer with the model that it reads shared out between processes, which then must call it as often as one another; any other
    scorer as it is."""
    model = getattr(scorer, "model", None)
    if not isinstance(model, nn.Module):
        return scorer
    from rlhf_lightning.sharding import shared_out

    shared = copy.copy(scorer)
    shared.model = shared_out(model, mesh)  # type: ignore[attr-defined]
    return shared
