"""The KL penalty to the reference, in the reward or in the loss (policy_kl)."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.flow import Experience, ScoredRollout


class KLPenalty:
    """No KL penalty; an option of policy_kl overrides the method of its placement."""

    def shape_rewards(self, scored: ScoredRollout) -> ScoredRollout:
        """Subtract the penalty from the rewards [B, T]."""
        return scored

    def per_token_loss(self, experience: Experience, log_probs: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Penalty [B, T] to add to the policy loss, and scalar metrics; None if there is none.

        Args:
            log_probs: [B, T] of the policy being trained.
        """
        return None
