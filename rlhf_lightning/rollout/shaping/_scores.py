"""Common part of the shapings of scores, which come first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.tensors import score_on_last_token


def reshape_scores(scored: ScoredRollout, change: Callable[[Tensor], Tensor], name: str) -> ScoredRollout:
    """Change the scores [B] and recompute the rewards [B, T] from them.

    Adding the difference to the rewards would be inexact: 1e30 + (5 - 1e30) is 0. Scores of greedy responses (advantage=remax) change
    too, to stay in the same units.

    Args:
        change: function of a tensor of scores.
        name: of the shaping, for the message.

    Raises:
        ConfigError: a shaping of rewards came before.
    """
    check_only_scores(scored, name)
    scores = change(scored.scores)
    baseline = None if scored.baseline_scores is None else change(scored.baseline_scores)
    rewards = score_on_last_token(scores, scored.response_mask)
    return dataclasses.replace(scored, scores=scores, rewards=rewards, baseline_scores=baseline)


def check_only_scores(scored: ScoredRollout, name: str) -> None:
    """Check that the rewards are only the scores. Raises ConfigError."""
    expected = score_on_last_token(scored.scores, scored.response_mask)
    if not torch.allclose(scored.rewards, expected, rtol=0.0, atol=0.0, equal_nan=True):
        raise ConfigError(f"{name} must be the first shaping; write rollout_shaping=[{name},...]")
