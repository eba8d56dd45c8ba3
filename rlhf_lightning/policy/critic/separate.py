"""A critic with a separate trunk, initialised as the policy's."""

from __future__ import annotations

import copy

from pydantic import NonNegativeInt

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Critic, zero_init_value_head
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scoring import Scorer


@register("policy_critic", "separate")
def separate(policy: LanguageModel, scorer: Scorer, *, warmup: NonNegativeInt = 0) -> Critic:
    """A copy of the policy's trunk with a zero-initialised value head.

    Ziegler et al. 2019; Huang et al. 2024.

    Details: docs/ppo_details.md#critic-on-the-policy-s-trunk-or.

    Args:
        warmup: updates at the start that train only the critic (Zheng et al. 2023, critic pre-training).
    """
    return Critic(zero_init_value_head(policy.width), copy.deepcopy(policy.trunk), warmup)
