"""A critic on the policy's trunk."""

from __future__ import annotations

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Critic, zero_init_value_head
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scoring import Scorer


@register("policy_critic", "shared")
def shared_critic(policy: LanguageModel, scorer: Scorer) -> Critic:
    """A value head on the policy's trunk: half the memory and computation of two models.

    The head starts at 0: an untrained critic sends no gradient to the shared trunk. With N(0, 1/(D+1)) the first updates moved the
    policy by 20 nats per response.

    Details: docs/ppo_details.md#critic-on-the-policy-s-trunk-or.
    """
    return Critic(zero_init_value_head(policy.width))
