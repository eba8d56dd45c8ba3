from __future__ import annotations

from rlhf_lightning.policy.objective import KLPenalty
from rlhf_lightning.registry import register


@register("policy_kl", "none")
class NoKL(KLPenalty):
    """No KL penalty to the reference; the KL is logged all the same."""
