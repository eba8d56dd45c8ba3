from __future__ import annotations

from rlhf_lightning.advantage._credit import discounted_sum, to_experience
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "remax", needs=["greedy"])
def remax(scored: ScoredRollout) -> Experience:
    """The rewards from each token on, less the score of the greedy response to the same prompt.

    ReMax (Li et al., 2023, algorithm 2), in verl's form: no critic and no group, one greedy response more per prompt. The greedy
    score is taken without a KL penalty, as in verl, and through the same shapings of scores (clip_score, normalise_score).

    Details: docs/conventions.md#remax.

    Args:
        scored: rewards and response_mask [B, T]; baseline_scores [B] of the greedy responses.

    Raises:
        ConfigError: no greedy scores in the record. DataError: advantages not finite.
    """
    if scored.baseline_scores is None:
        raise ConfigError("advantage=remax needs the scores of greedy responses, and this run draws none; choose advantage=rloo")
    to_go = discounted_sum(scored.rewards, scored.response_mask, 1.0)
    return to_experience(scored, to_go - scored.baseline_scores.to(to_go.dtype)[:, None])
