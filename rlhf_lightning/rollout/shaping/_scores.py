"""What the shapings of scores share: they come first, while the rewards are the scores alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.tensors import score_on_last_token


def rescored(scored: ScoredRollout, change: Callable[[Tensor], Tensor], name: str) -> ScoredRollout:
    """The record with changed scores [B], the rewards [B, T] laid anew from them.

    The rewards are not corrected by the difference, for 1e30 + (5 - 1e30) is 0. Scores of greedy responses (advantage=remax) change
    with them, else they'd be in other units.

    Args:
        change: of a tensor of scores.
        name: of the shaping, for the message.

    Raises:
        ConfigError: another shaping than one of scores came before.
    """
    refuse_after_others(scored, name)
    scores = change(scored.scores)
    baseline = None if scored.baseline_scores is None else change(scored.baseline_scores)
    rewards = score_on_last_token(scores, scored.response_mask)
    return dataclasses.replace(scored, scores=scores, rewards=rewards, baseline_scores=baseline)


def refuse_after_others(scored: ScoredRollout, name: str) -> None:
    """Raise ConfigError unless the rewards are the scores alone."""
    laid = score_on_last_token(scored.scores, scored.response_mask)
    if not torch.allclose(scored.rewards, laid, rtol=0.0, atol=0.0, equal_nan=True):
        raise ConfigError(f"{name} must be the first shaping; write rollout_shaping=[{name},...]")
