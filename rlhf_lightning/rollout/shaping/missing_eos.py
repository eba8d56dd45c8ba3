from __future__ import annotations

import dataclasses

from pydantic import NonNegativeFloat

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import score_on_last_token


@register("rollout_shaping", "missing_eos")
def missing_eos(scored: ScoredRollout, *, penalty: NonNegativeFloat = 1.0) -> ScoredRollout:
    """Subtract a penalty on the last token of a truncated response.

    As in TRL's PPO. It reads has_eos [B], not token ids, because pad and EOS may be the same.

    Details: docs/ppo_details.md#a-penalty-where-the-eos-is-missing.

    Args:
        scored: rewards and response_mask [B, T], has_eos [B].
        penalty: subtracted from the last token's reward, in units of reward.
    """
    due = penalty * (~scored.has_eos.bool()).to(scored.rewards.dtype)
    return dataclasses.replace(scored, rewards=scored.rewards - score_on_last_token(due, scored.response_mask))
