"""Kahneman-Tversky optimisation: from thumbs, without pairs."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from rlhf_lightning.preference.record import Answers, Thumbed
from rlhf_lightning.registry import register


@register("preference_loss", "kto", needs=["reference", "thumbs"])
class KTO:
    """The human value of thumbs up and down, with the KL as reference point.

    Ethayarajh et al. 2024, eq. 8.

    The loss of a response is w * sigmoid(beta * (z - log(policy / reference))) for a thumbs-up and that of the negated argument for a
    thumbs-down. z is the KL from the reference, estimated on prompts with responses to other prompts, one for each thumb and the same
    throughout, averaged over the batch of all processes and held at 0 or above; it carries no gradient.

    Details: docs/conventions.md#kto-s-reference-point.

    Args:
        beta: how fast the value saturates.
        desirable_weight, undesirable_weight: weights of thumbs up and down; the paper has (weight x number) of the two alike within 4 : 3.
        from_pairs: learn from comparisons, too: the better response counts as a thumbs-up, the worse as a thumbs-down.
    """

    def __init__(
        self,
        *,
        beta: PositiveFloat = 0.1,
        desirable_weight: NonNegativeFloat = 1.0,
        undesirable_weight: NonNegativeFloat = 1.0,
        from_pairs: bool = False,
    ) -> None:
        self.beta, self.desirable_weight, self.undesirable_weight = beta, desirable_weight, undesirable_weight
        self.from_pairs = from_pairs

    def __call__(self, judged: Thumbed) -> Tensor:
        gain = self.rewards(judged.answers) - self.beta * judged.divergence
        up = judged.up > 0
        weight = self.desirable_weight * up + self.undesirable_weight * ~up
        losses: Tensor = weight * gain.where(~up, -gain).sigmoid()
        return losses

    def rewards(self, answers: Answers) -> Tensor:
        return self.beta * answers.log_ratio()
