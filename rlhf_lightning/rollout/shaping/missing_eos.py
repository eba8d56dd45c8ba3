from __future__ import annotations

import dataclasses

from pydantic import NonNegativeFloat

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import score_on_last_token


@register("rollout_shaping", "missing_eos")
def missing_eos(scored: ScoredRollout, *, penalty: NonNegativeFloat = 1.0) -> ScoredRollout:
    """A response that was cut off before it ended pays a penalty on its last token.

    As in TRL's PPO. Whether it ended is has_eos [B], what the sampler saw; token ids aren't read, for pad and EOS may be the same.

    Args:
        scored: rewards and response_mask [B, T], has_eos [B].
        penalty: in units of reward.
    """
    due = penalty * (~scored.has_eos.bool()).to(scored.rewards.dtype)
    return dataclasses.replace(scored, rewards=scored.rewards - score_on_last_token(due, scored.response_mask))
