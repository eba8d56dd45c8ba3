from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, FiniteFloat

from rlhf_lightning.config.schema import in_order
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping._scores import reshape_scores


@register("rollout_shaping", "clip_score", needs=["scores"])
def clip_score(
    scored: ScoredRollout, *, limits: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(in_order)] = (-5.0, 5.0)
) -> ScoredRollout:
    """Clip the score to limits; put it first.

    Both scores [B] and rewards [B, T] change.

    Details: docs/ppo_details.md#reward-clipping-alone.

    Args:
        scored: scores [B]; rewards and response_mask [B, T].
        limits: lowest and highest score.

    Raises:
        ConfigError: another shaping came before.
    """
    return reshape_scores(scored, lambda scores: scores.clamp(*limits), "clip_score")
