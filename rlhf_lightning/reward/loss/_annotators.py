"""What annotators have of their own: a shift, a scale or a share of errors, each shrunk to what all have in common."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

Noise = Literal["none", "learned"]
ErrorRate = Annotated[float, Field(gt=0, lt=0.5)]

ERROR_SPREAD = 1.5
"""Standard deviation between annotators of the logit of their error rate: of 0.1, two thirds lie between 0.02 and 0.33."""


class PerAnnotator(nn.Module):
    """A number for each annotator, normal around 0 with standard deviation `spread` between them; 0 for one who isn't known.

    The prior is a term of the loss, `penalty`, dealt out over an annotator's judgements: over an epoch each annotator's prior counts
    once, so that who judged little stays near what all have in common and who judged a lot gets a number of one's own.

    Args:
        judgements: [A] how many each annotator gave (`losses.build_losses`); None where nobody is known.
        spread: 0 for none: all are alike.
    """

    judgements: Tensor

    def __init__(self, judgements: Tensor | None, spread: float) -> None:
        super().__init__()
        counted = torch.zeros(1) if judgements is None else judgements.float()
        self.register_buffer("judgements", counted.clamp(min=1), persistent=False)
        self.spread = spread
        self.own = nn.Parameter(torch.zeros(len(counted))) if spread and len(counted) > 1 else None

    def forward(self, annotator: Tensor) -> Tensor | float:
        """[M] the number of who gave each judgement."""
        return 0.0 if self.own is None else self.spread * self.own[annotator] * (annotator > 0)

    def penalty(self, annotator: Tensor) -> Tensor | float:
        """[M] the negative log of the prior, less a constant, shared out over an annotator's judgements."""
        return 0.0 if self.own is None else 0.5 * self.own[annotator] ** 2 / self.judgements[annotator] * (annotator > 0)


class Faultless(nn.Module):
    """Annotators who say what they mean: probabilities stay as they are."""

    def flipped(self, logit: Tensor, annotator: Tensor) -> Tensor:
        """[M] the log-odds of a two-way answer, once the annotator may have said the opposite."""
        return logit

    def mixed(self, log_prob: Tensor, otherwise: Tensor, annotator: Tensor) -> Tensor:
        """[M] the log-probability of an answer, once the annotator may have given it by error, which has probability exp(otherwise)."""
        return log_prob

    def penalty(self, annotator: Tensor) -> Tensor | float:
        """[M] the prior's share of each judgement."""
        return 0.0


class ErrorRates(Faultless):
    """Annotators who err: p' = (1 - e) p + e q with an error rate e of each one's own, q the probability of the answer by error.

    For two-way answers q = 1 - p, the opposite (Crowd-BT: Chen, Bennett, Collins-Thompson and Horvitz 2013; class-conditional noise:
    Natarajan, Dhillon, Ravikumar and Tewari 2013): e = 1/2 is an annotator who tosses a coin, e near 1 one who holds the scale upside
    down, from whom is learned as well. logit e = logit(error_rate) + common + ERROR_SPREAD * own; common and own have standard normal
    priors. An annotator who isn't known errs as is common. Deviation from Crowd-BT: its Beta prior and online updates are a logistic
    normal and gradients here, and there is no virtual item: the model's own regularisation stands for it.
    """

    def __init__(self, judgements: Tensor | None, error_rate: float) -> None:
        super().__init__()
        self.own = PerAnnotator(judgements, ERROR_SPREAD)
        self.common = nn.Parameter(torch.tensor(0.0))
        self.typical = math.log(error_rate / (1 - error_rate))

    def logits(self, annotator: Tensor) -> Tensor:
        """[M] log-odds of an error."""
        own: Tensor | float = self.own(annotator)
        return (self.typical + self.common).expand(len(annotator)) + own

    def rates(self) -> Tensor:
        """[A] the error rate of each annotator; the first is that of one who isn't known."""
        return torch.sigmoid(self.logits(torch.arange(len(self.own.judgements), device=self.common.device))).detach()

    def flipped(self, logit: Tensor, annotator: Tensor) -> Tensor:
        error = self.logits(annotator)
        side = torch.where(logit < 0, -1.0, 1.0).to(logit.dtype)
        size = side * logit  # for negative exponents alone, which lose no digit; not abs, whose slope at 0 is 0
        told: Tensor = side * (softplus(error - size) - torch.logaddexp(error, -size))
        return told

    def mixed(self, log_prob: Tensor, otherwise: Tensor, annotator: Tensor) -> Tensor:
        error = self.logits(annotator)
        return torch.logaddexp(logsigmoid(-error) + log_prob, logsigmoid(error) + otherwise)

    def penalty(self, annotator: Tensor) -> Tensor | float:
        return self.own.penalty(annotator) + 0.5 * self.common**2 / self.own.judgements.sum()


def errors(noise: Noise, judgements: Tensor | None, error_rate: float) -> Faultless:
    """`ErrorRates` where the noise is learned, else `Faultless`."""
    return ErrorRates(judgements, error_rate) if noise == "learned" else Faultless()
