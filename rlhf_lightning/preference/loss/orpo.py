"""Odds-ratio preference optimisation, with supervised fine-tuning and without a reference."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.registry import register

NEAREST = -1e-6
"""A mean log-probability is held at or below this: the odds of a certain response are infinite."""


@register("preference_loss", "orpo")
class ORPO:
    """Negative log-likelihood of the better response + beta * (-log sigmoid of the log odds ratio).

    Hong et al. 2024, eq. 6; without a reference.

    The odds are p / (1 - p), log p the mean log-probability of a response's tokens. The likelihood is that of the response given its
    prompt, as in the paper; TRL also counts the prompt's tokens, and averages over a batch's tokens rather than over its responses.

    Details: docs/conventions.md#orpo-s-likelihood.

    Args:
        beta: the paper's lambda, the weight of the odds ratio; 0 is supervised fine-tuning on the better responses.
    """

    def __init__(self, *, beta: NonNegativeFloat = 0.1) -> None:
        self.beta = beta

    def __call__(self, judged: Compared) -> Tensor:
        ratio = log_odds(judged.chosen.per_token()) - log_odds(judged.rejected.per_token())
        return -judged.chosen.per_token() - self.beta * logsigmoid(ratio)

    def rewards(self, answers: Answers) -> Tensor:
        return self.beta * answers.per_token()


def log_odds(log_probs: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p."""
    held = log_probs.clamp(max=NEAREST)
    return held - torch.log(-torch.expm1(held))
