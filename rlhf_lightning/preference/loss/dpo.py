"""Direct preference optimisation and its variants for wrong labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss.bradley_terry import bradley_terry_loss


@register("preference_loss", "dpo", needs=["reference"])
class DPO:
    """Bradley-Terry on implicit rewards, r = beta * log(policy / reference).

    Rafailov et al. 2023, eq. 7.

    Details: docs/conventions.md#dpo-per-token, docs/conventions.md#robust.

    Args:
        beta: how much a nat away from the reference is worth; small values move further.
        variant: "sigmoid": the likelihood; "robust": an unbiased estimate of it under labels of which label_smoothing are wrong
            (Chowdhury et al. 2024, eq. 12); "hinge": max(0, 1 - log-odds) (Liu et al. 2024, SLiC on implicit rewards).
        label_smoothing: share of labels taken to be wrong; with "sigmoid" the expected likelihood (Mitchell 2023, "conservative DPO").
        length_normalised: log-ratios per token, so that a long response isn't worth more for its length.

    Raises:
        ConfigError: label_smoothing with "hinge", which knows no labels' probability.
    """

    def __init__(
        self,
        *,
        beta: PositiveFloat = 0.1,
        variant: Literal["sigmoid", "robust", "hinge"] = "sigmoid",
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        length_normalised: bool = False,
    ) -> None:
        if variant == "hinge" and label_smoothing:
            raise ConfigError(
                f"preference_loss.label_smoothing={label_smoothing} means nothing with preference_loss.variant=hinge: leave one of them out"
            )
        self.beta, self.variant, self.label_smoothing, self.length_normalised = beta, variant, label_smoothing, length_normalised

    def __call__(self, judged: Compared) -> Tensor:
        log_odds = self.rewards(judged.chosen) - self.rewards(judged.rejected)
        if self.variant == "hinge":
            return relu(1 - log_odds)
        if self.variant == "robust":
            return robust_loss(log_odds, self.label_smoothing)
        return bradley_terry_loss(log_odds, self.label_smoothing)

    def rewards(self, answers: Answers) -> Tensor:
        return self.beta * answers.log_ratio(self.length_normalised)


def robust_loss(log_odds: Tensor, wrong: float) -> Tensor:
    """Unbiased estimate of -log sigmoid(log_odds) under correct labels; may be negative.

    Args:
        wrong: fraction of wrong labels; the mean over flips of that rate is the loss without flips.
    """
    return ((wrong - 1) * logsigmoid(log_odds) + wrong * logsigmoid(-log_odds)) / (1 - 2 * wrong)
