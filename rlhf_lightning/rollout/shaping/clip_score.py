from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from pydantic import AfterValidator, FiniteFloat

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import ScoredRollout, score_on_last_token
from rlhf_lightning.registry import register


def _in_order(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ValueError("the limits must be [lowest, highest], the first below the second")
    return limits


@register("rollout_shaping", "clip_score")
def clip_score(
    scored: ScoredRollout, *, limits: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_in_order)] = (-5.0, 5.0)
) -> ScoredRollout:
    """The score is held within limits, before anything else is added; put it first.

    Both scores [B] and rewards [B, T] change: the rewards are laid anew from the clipped scores. They are not corrected by the
    difference, for 1e30 + (5 - 1e30) is 0. So the rewards must still be the scores alone.

    Args:
        scored: scores [B]; rewards and response_mask [B, T].
        limits: lowest and highest score.

    Raises:
        ConfigError: another shaping came before.
    """
    laid = score_on_last_token(scored.scores, scored.response_mask)
    if not torch.allclose(scored.rewards, laid, rtol=0.0, atol=0.0, equal_nan=True):
        raise ConfigError("clip_score must be the first shaping; write rollout_shaping=[clip_score,...]")
    scores = scored.scores.clamp(*limits)
    return dataclasses.replace(scored, scores=scores, rewards=score_on_last_token(scores, scored.response_mask))
