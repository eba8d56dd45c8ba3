"""A critic on the policy's own trunk."""

from __future__ import annotations

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Critic, zero_init_value_head
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scoring import Scorer


@register("policy_critic", "shared")
def shared(policy: LanguageModel, scorer: Scorer) -> Critic:
    """A value head on the policy's own trunk: one model with two heads, half the memory and work of two.

    The head starts at 0: a shared trunk gets no gradient from a critic that knows nothing yet. From N(0, 1/(D+1)) the first updates
    moved the policy by 20 nats a response for nothing.
    """
    return Critic(zero_init_value_head(policy.width))
