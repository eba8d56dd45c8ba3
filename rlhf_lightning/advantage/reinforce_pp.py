from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlhf_lightning.advantage._credit import discounted_sum, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping.whiten_rewards import whiten_values


@register("advantage", "reinforce_pp")
def reinforce_pp(scored: ScoredRollout, *, gamma: Annotated[float, Field(ge=0, le=1)] = 1.0) -> Experience:
    """REINFORCE++: the discounted return from each token on, whitened over the batch.

    Hu (2025), in verl's form: the KL penalty is in the token rewards, the batch is the baseline, and a token outside the mask
    starts the sum again, so that in a response with holes a reward stays in its own stretch.

    Details: docs/conventions.md#reinforce.

    Args:
        gamma: discount per token.
    """
    returns = discounted_sum(scored.rewards, scored.response_mask, gamma, reset=True)
    return to_experience(scored, whiten_values(returns, scored.response_mask))
