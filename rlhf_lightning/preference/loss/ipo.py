"""Identity preference optimisation."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.registry import register


@register("preference_loss", "ipo", needs=["reference"])
class IPO:
    """Squared distance of a pair's log-ratios from the target 1 / (2 beta), which dpo doesn't have.

    Azar et al. 2024, eq. 17.

    Details: docs/conventions.md#ipo.

    Args:
        beta: the paper's tau; the policy is to prefer the better response by 1 / (2 beta) nats more than the reference does.
        length_normalised: log-ratios per token, as TRL has it; the target is then in nats a token.
    """

    def __init__(self, *, beta: PositiveFloat = 0.1, length_normalised: bool = False) -> None:
        self.beta, self.length_normalised = beta, length_normalised

    def __call__(self, judged: Compared) -> Tensor:
        apart = judged.chosen.log_ratio(self.length_normalised) - judged.rejected.log_ratio(self.length_normalised)
        losses: Tensor = (apart - 1 / (2 * self.beta)) ** 2
        return losses

    def rewards(self, answers: Answers) -> Tensor:
        return self.beta * answers.log_ratio(self.length_normalised)
