from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat

from rlhf_lightning.config.schema import in_order
from rlhf_lightning.policy.kl_control.adaptive import check_kl
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.registry import register

Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(in_order)]


@register("policy_kl_control", "target_range")
class TargetRangeKL(FixedKL):
    """A KL coefficient that changes only while the KL is outside a range.

    coef *= factor while KL(policy, reference) is above the range, coef /= factor while below, after each update (Schulman et al.,
    2017, section 4, with factor 2 and the range target / 1.5 to target * 1.5; theirs is the KL to the old policy). Deviation: the
    coefficient stays within `limits`, else a policy that has collapsed takes it to infinity, and one that learns nothing to 0.

    Details: docs/ppo_details.md#kl-held-in-a-range.

    Args:
        coef: the KL coefficient at the start, in reward units per nat; clamped to limits.
        target: lowest and highest KL wanted, in nats, summed over a response and averaged over responses.
        factor: how fast the coefficient moves.
        limits: the lowest and highest coefficient.
    """

    def __init__(
        self,
        *,
        coef: PositiveFloat = 0.05,
        target: Range = (4.0, 9.0),
        factor: Annotated[float, Field(gt=1)] = 1.5,
        limits: Range = (1e-4, 10.0),
    ) -> None:
        super().__init__(coef=min(max(coef, limits[0]), limits[1]))
        self.target, self.factor, self.limits = target, factor, limits

    def update(self, kl: float, responses: int) -> None:
        """Update the coefficient.

        Args:
            kl: mean over responses of the KL summed over each response, in nats.
            responses: ignored; same interface as AdaptiveKL.

        Raises:
            UserError: kl is not a number.
        """
        kl = check_kl(kl)
        step = self.factor if kl > self.target[1] else 1 / self.factor if kl < self.target[0] else 1.0
        self.coef = min(max(self.coef * step, self.limits[0]), self.limits[1])
