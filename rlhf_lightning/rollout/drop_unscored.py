"""Exclusion of responses without a score from the update."""

from __future__ import annotations

import torch

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import ScoredRollout


def drop_unscored(scored: ScoredRollout, max_fraction: float, scorer: str) -> tuple[ScoredRollout, str]:
    """Keep the rows with a finite score, and a finite baseline score if there are baselines.

    A dropped row is in no gradient, baseline, group mean, whitening or running statistic.

    Args:
        scored: of all processes: each of them drops the same rows.
        max_fraction: of rows that may be dropped; one is always allowed.
        scorer: its name, for messages.

    Returns:
        The other rows, and a sentence on the dropped ones; empty if there are none.

    Raises:
        UserError: a larger fraction.
    """
    is_scored = scored.scores.isfinite()
    if scored.baseline_scores is not None:
        is_scored &= scored.baseline_scores.isfinite()
    unscored = (~is_scored).nonzero().flatten().tolist()
    if not unscored:
        return scored, ""
    example = scored.responses[unscored[0]][:80]
    note = f"scorer {scorer} couldn't score {len(unscored)} of {len(scored)} responses (NaN or None), as {example!r}"
    if len(unscored) == len(scored) or len(unscored) > max(1.0, max_fraction * len(scored)):
        raise UserError(f"{note}: more than ppo.max_unscorable={max_fraction:g} of an update; fix the scorer, or raise that limit")
    return scored.select(torch.nonzero(is_scored).flatten()), f"{note}; they are left out (objective/unscorable)"
