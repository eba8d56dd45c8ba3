"""A critic initialised as the reward model."""

from __future__ import annotations

import copy

import torch
from pydantic import NonNegativeInt
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations, has_checkpointing
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Critic
from rlhf_lightning.registry import register
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.storage.classifier import linear_score
from rlhf_lightning.rollout.scoring import Scorer


@register("policy_critic", "reward_model", needs=["reward_model"])
def reward_model(policy: LanguageModel, scorer: Scorer, *, warmup: NonNegativeInt = 0) -> Critic:
    """A separate trunk and head, initialised as those of the reward model.

    Stiennon et al. 2020; Huang et al. 2024; Zheng et al. 2023. Before the first update its value of a complete response is the reward
    model's normalised score.

    Details: docs/ppo_details.md#critic-starts-from-the-reward-model.

    Args:
        scorer: rollout_scorer=reward_model, with a linear head on the last token of a decoder, and the policy's tokenizer.
        warmup: updates at the start that train only the critic (Zheng et al. 2023, critic pre-training).

    Raises:
        ConfigError: a scorer that can't initialise a critic, with the reason.
    """
    model = getattr(scorer, "model", None)
    trunk_and_weight = linear_score(model) if isinstance(model, RewardModel) else None
    if model is None or trunk_and_weight is None:
        raise ConfigError(
            "policy_critic=reward_model needs a reward model with reward_head=linear and reward_pooling=last on a decoder, "
            "and this rollout_scorer is none: train one, or choose policy_critic=separate"
        )
    if model.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            "policy_critic=reward_model reads the policy's tokens, and the reward model has another tokenizer: train the reward model on "
            "the policy's backbone, or choose policy_critic=separate"
        )
    trunk, weight = trunk_and_weight
    head = nn.Linear(len(weight), 1)
    with torch.no_grad():
        head.weight.copy_(weight / model.deviation)
        head.bias.copy_(-model.mean / model.deviation)
    trunk = copy.deepcopy(trunk).requires_grad_(True)
    if has_checkpointing(policy.model):
        checkpoint_activations(trunk)
    return Critic(head, trunk, warmup)
