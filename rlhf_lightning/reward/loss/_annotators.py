"""Per-annotator random effects: a shift, a scale or an error rate, shrunk to the common value."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

AnnotatorNoise = Literal["none", "learned"]
ErrorRate = Annotated[float, Field(gt=0, lt=0.5)]

ERROR_SPREAD = 1.5
"""Standard deviation between annotators of the logit of their error rate: of 0.1, two thirds lie between 0.02 and 0.33."""


class PerAnnotator(nn.Module):
    """A random effect of each annotator, normal around 0 with deviation `spread`; 0 for an unknown one.

    The prior is a term of the loss, `penalty`, divided among an annotator's judgements: over an epoch each annotator's prior counts once,
    so that annotators with few judgements stay near 0.

    Args:
        judgements: [A] number per annotator (`losses.build_losses`); None without known annotators.
        spread: 0 for no effect.
    """

    judgements: Tensor

    def __init__(self, judgements: Tensor | None, spread: float) -> None:
        super().__init__()
        counted = torch.zeros(1) if judgements is None else judgements.float()
        self.register_buffer("judgements", counted.clamp(min=1), persistent=False)
        self.spread = spread
        self.effects = nn.Parameter(torch.zeros(len(counted))) if spread and len(counted) > 1 else None

    def forward(self, annotator: Tensor) -> Tensor | float:
        """[M] the effect of each judgement's annotator."""
        return 0.0 if self.effects is None else self.spread * self.effects[annotator] * (annotator > 0)

    def penalty(self, annotator: Tensor) -> Tensor | float:
        """[M] the negative log prior, up to a constant, divided among an annotator's judgements."""
        return 0.0 if self.effects is None else 0.5 * self.effects[annotator] ** 2 / self.judgements[annotator] * (annotator > 0)


class NoErrors(nn.Module):
    """Annotators without errors: probabilities stay unchanged."""

    def flip(self, logit: Tensor, annotator: Tensor) -> Tensor:
        """[M] the log-odds of a binary answer that may be the opposite by error."""
        return logit

    def mix(self, log_prob: Tensor, otherwise: Tensor, annotator: Tensor) -> Tensor:
        """[M] the log-probability of an answer, of probability exp(otherwise) if it is an error."""
        return log_prob

    def penalty(self, annotator: Tensor) -> Tensor | float:
        """[M] the prior's share of each judgement."""
        return 0.0


class ErrorRates(NoErrors):
    """Annotators with error rates e: p' = (1 - e) p + e q, q being an answer's probability by error.

    For binary answers q = 1 - p, the opposite (Crowd-BT: Chen, Bennett, Collins-Thompson and Horvitz 2013; class-conditional noise:
    Natarajan, Dhillon, Ravikumar and Tewari 2013): e = 1/2 is random, e near 1 an inverted scale, which is informative too. logit e =
    logit(error_rate) + common + ERROR_SPREAD * effect; common and effect have standard normal priors. An unknown annotator has the common
    rate. Deviations from Crowd-BT: a logistic normal prior and gradients instead of a Beta prior and online updates, and the model's
    regularisation instead of a virtual item.
    """

    def __init__(self, judgements: Tensor | None, error_rate: float) -> None:
        super().__init__()
        self.annotator_logit = PerAnnotator(judgements, ERROR_SPREAD)
        self.common = nn.Parameter(torch.tensor(0.0))
        self.typical = math.log(error_rate / (1 - error_rate))

    def logits(self, annotator: Tensor) -> Tensor:
        """[M] log-odds of an error."""
        effect: Tensor | float = self.annotator_logit(annotator)
        return (self.typical + self.common).expand(len(annotator)) + effect

    def rates(self) -> Tensor:
        """[A] the error rate of each annotator; the first is that of unknown ones."""
        return torch.sigmoid(self.logits(torch.arange(len(self.annotator_logit.judgements), device=self.common.device))).detach()

    def flip(self, logit: Tensor, annotator: Tensor) -> Tensor:
        error = self.logits(annotator)
        side = torch.where(logit < 0, -1.0, 1.0).to(logit.dtype)
        size = side * logit  # negative exponents lose no digit; not abs, whose slope at 0 is 0
        flipped: Tensor = side * (softplus(error - size) - torch.logaddexp(error, -size))
        return flipped

    def mix(self, log_prob: Tensor, otherwise: Tensor, annotator: Tensor) -> Tensor:
        error = self.logits(annotator)
        return torch.logaddexp(logsigmoid(-error) + log_prob, logsigmoid(error) + otherwise)

    def penalty(self, annotator: Tensor) -> Tensor | float:
        return self.annotator_logit.penalty(annotator) + 0.5 * self.common**2 / self.annotator_logit.judgements.sum()


def error_model(noise: AnnotatorNoise, judgements: Tensor | None, error_rate: float) -> NoErrors:
    """`ErrorRates` if the noise is learned, else `NoErrors`."""
    return ErrorRates(judgements, error_rate) if noise == "learned" else NoErrors()
