from __future__ import annotations

import math

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.errors import UserError
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.registry import register


@register("policy_kl_control", "adaptive")
class AdaptiveKL(FixedKL):
    """A KL coefficient that adapts until the KL meets a target.

    coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * responses / horizon (Ziegler et al., 2019, section 2.2, as in their code).
    Deviation: more responses than the horizon count as the horizon; in theirs the coefficient can turn negative.

    Details: docs/conventions.md#adaptive-kl-coefficient, docs/ppo_details.md#adaptive-kl-coefficient.

    Args:
        coef: the KL coefficient at the start, in reward units per nat.
        target: KL(policy, reference) wanted, in nats, summed over a response and averaged over responses.
        horizon: responses after which a KL far too high has multiplied the coefficient by about e^0.2.
    """

    def __init__(self, *, coef: PositiveFloat = 0.2, target: PositiveFloat = 6.0, horizon: PositiveInt = 10_000) -> None:
        super().__init__(coef=coef)
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, responses: int) -> None:
        """Update the coefficient.

        Args:
            kl: mean over responses of the KL summed over each response, in nats.
            responses: number of responses in the mean, over all ranks.

        Raises:
            UserError: kl is not a number.
        """
        error = min(max(check_kl(kl) / self.target - 1, -0.2), 0.2)
        self.coef *= 1 + error * min(responses / self.horizon, 1.0)


def check_kl(kl: float) -> float:
    """Return the KL. Raises UserError if it is NaN."""
    if math.isnan(kl):
        raise UserError("the KL between policy and reference is not a number; the policy's weights or log-probabilities are damaged")
    return kl
