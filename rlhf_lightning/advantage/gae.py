from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat

from rlhf_lightning.advantage._credit import discounted_sum, to_experience
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping.whiten_rewards import whiten_values


@register("advantage", "gae", needs=["values"])
def gae(
    scored: ScoredRollout,
    *,
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0,
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95,
    whiten: bool = True,
    advantage_clip: PositiveFloat | None = None,
) -> Experience:
    """Generalised advantage estimation with a critic, whitened over the batch.

    delta[t] = r[t] + gamma V[t+1] - V[t]; A[t] = delta[t] + gamma lam A[t+1]; returns = A + V before whitening (Schulman et al.,
    2016, eq. 11 to 16). The value after the last token is 0, also for a response cut off at its maximal length, as in TRL and verl.
    Tokens outside the mask are skipped: the next token of a token is the next one inside the mask (verl, NeMo-RL).

    Details: docs/ppo_details.md#discount-1-lambda-0-95, docs/conventions.md#value-after-the-last-token, docs/conventions.md#whitening.

    Args:
        gamma: discount per token.
        lam: 0 is the one-step error, 1 the discounted return less the value.
        whiten: mean 0 and variance 1 over all response tokens of the batch (unbiased variance, eps 1e-8 under the root).
        advantage_clip: bound of the absolute advantages after whitening (Zheng et al., 2023, section 5.3.1); None leaves them.

    Raises:
        ConfigError: no values in the record. DataError: advantages not finite, or too large to whiten.
    """
    if scored.values is None:
        raise ConfigError("advantage=gae needs a critic's values; choose a policy with a value head, or advantage=rloo")
    mask, values = scored.response_mask, scored.values
    at_or_after = discounted_sum(values, mask, 0.0)
    following = torch.cat([at_or_after[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    advantages = discounted_sum(scored.rewards + gamma * following - values, mask, gamma * lam)
    returns = advantages + values
    advantages = whiten_values(advantages, mask) if whiten else advantages
    return to_experience(scored, advantages if advantage_clip is None else advantages.clamp(-advantage_clip, advantage_clip), returns)
