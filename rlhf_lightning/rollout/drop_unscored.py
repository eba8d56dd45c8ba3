"""Responses that their scorer couldn't score: left out of what is learned from, counted, and too many of them stop the run."""

from __future__ import annotations

import torch

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import ScoredRollout


def drop_unscored(scored: ScoredRollout, most: float, scorer: str) -> tuple[ScoredRollout, str]:
    """The rows whose score, and whose baseline's score where there is one, is a number.

    A row that is left out is in no gradient, baseline, group's mean, whitening or running statistic.

    Args:
        scored: of all processes, so that each of them leaves out the same rows.
        most: the share of rows that may be left out, at least one.
        scorer: its name, for what is said.

    Returns:
        The other rows, and a sentence on what was left out; empty where all are there.

    Raises:
        UserError: a larger share.
    """
    kept = scored.scores.isfinite()
    if scored.baseline_scores is not None:
        kept &= scored.baseline_scores.isfinite()
    lost = (~kept).nonzero().flatten().tolist()
    if not lost:
        return scored, ""
    found = f"scorer {scorer} couldn't score {len(lost)} of {len(scored)} responses (NaN or None), as {scored.responses[lost[0]][:80]!r}"
    if len(lost) == len(scored) or len(lost) > max(1.0, most * len(scored)):
        raise UserError(f"{found}: more than ppo.max_unscorable={most:g} of an update; mend the scorer, or raise that limit")
    return scored.select(torch.nonzero(kept).flatten()), f"{found}; they are left out (objective/unscorable)"
