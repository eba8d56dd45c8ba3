from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlhf_lightning.advantage._credit import discounted_sum, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "reinforce")
def reinforce(scored: ScoredRollout, *, gamma: Annotated[float, Field(ge=0, le=1)] = 1.0) -> Experience:
    """The discounted return from each token on, with no baseline.

    A[t] = r[t] + gamma A[t+1] (Williams, 1992). Tokens outside the mask are skipped, as in gae; OpenRLHF lets them discount.

    Details: docs/ppo_details.md#no-critic.

    Args:
        gamma: discount per token.
    """
    return to_experience(scored, discounted_sum(scored.rewards, scored.response_mask, gamma))
