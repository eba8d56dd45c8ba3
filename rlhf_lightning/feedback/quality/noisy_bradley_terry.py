"""Comparisons by several annotators: what each text is worth, and who looks at the texts at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_lightning.feedback.quality.fitting import minimise

_MEAN_SKILL = 1.0


@dataclass(frozen=True)
class NoisyBradleyTerry:
    """R responses, A annotators.

    Attributes:
        scores: [R] Bradley-Terry scores, in logits.
        skill: [A] the share of an annotator's comparisons that follow the scores, in (0, 1).
        bias: [A] the probability that its other comparisons fall to the response that was shown first.
    """

    scores: np.ndarray
    skill: np.ndarray
    bias: np.ndarray


def noisy_bradley_terry(
    first: np.ndarray,
    second: np.ndarray,
    annotator: np.ndarray,
    outcome: np.ndarray,
    *,
    shown: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    score_spread: float = 2.0,
    skill_spread: float = 1.5,
    bias_spread: float = 1.0,
    iterations: int = 300,
) -> NoisyBradleyTerry:
    """P(first wins) = skill * sigmoid(score difference) + (1 - skill) * sigmoid(bias), the model of crowdkit's NoisyBradleyTerry.

    The most probable values under normal priors, by L-BFGS from the shares of wins, so that equal data give equal values. Skills
    shrink to their own mean, which is fitted too. Deviations: crowdkit starts at random, its gradient of skill and bias keeps only
    each annotator's last comparison, and it hardly regularises.

    Args:
        first, second: [N] indices of the compared responses.
        annotator: [N] indices from 0.
        outcome: [N] 1 where the first won, 0 where the second did, 0.5 for a tie: half a win for each.
        shown: [N] 1 where the first was shown first, -1 where the second was, 0 where it isn't known (no bias then); default: all 1.
        weight: [N] how much a comparison counts.
        score_spread, skill_spread, bias_spread: standard deviations of scores, and of the logits of skills and biases.
    """
    one, two, by = (torch.as_tensor(column, dtype=torch.long) for column in (first, second, annotator))
    won = torch.as_tensor(outcome, dtype=torch.float64)
    side = torch.ones_like(won) if shown is None else torch.as_tensor(shown, dtype=torch.float64)
    counts = torch.ones_like(won) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    responses, annotators = int(max(one.max(), two.max())) + 1, int(by.max()) + 1
    unit = [torch.zeros(size, dtype=torch.float64) for size in (responses, annotators, annotators, 1)]
    unit[0] += _win_shares(one, two, won, counts, responses) / score_spread
    for part in unit:
        part.requires_grad_()

    def loss() -> Tensor:
        difference = score_spread * (unit[0][one] - unit[0][two])
        skill = (_MEAN_SKILL + unit[3] + skill_spread * unit[1])[by]
        habit = bias_spread * unit[2][by] * side
        first_wins = torch.logaddexp(logsigmoid(skill) + logsigmoid(difference), logsigmoid(-skill) + logsigmoid(habit))
        second_wins = torch.logaddexp(logsigmoid(skill) + logsigmoid(-difference), logsigmoid(-skill) + logsigmoid(-habit))
        return -(counts * (won * first_wins + (1 - won) * second_wins)).sum() + sum((part**2).sum() for part in unit) / 2

    minimise(unit, loss, iterations)
    scores, deviation, habit, mean = (part.detach() for part in unit)
    skill = torch.sigmoid(_MEAN_SKILL + mean + skill_spread * deviation)
    return NoisyBradleyTerry((score_spread * scores).numpy(), skill.numpy(), torch.sigmoid(bias_spread * habit).numpy())


def _win_shares(first: Tensor, second: Tensor, won: Tensor, weight: Tensor, responses: int) -> Tensor:
    """[R] wins less losses over comparisons, between -1 and 1. At equal scores the skills have no gradient: a start must differ."""
    gain, size = weight * (2 * won - 1), torch.ones(responses, dtype=torch.float64)
    lead = torch.zeros(responses, dtype=torch.float64).index_add_(0, first, gain).index_add_(0, second, -gain)
    return lead / size.index_add_(0, first, weight).index_add_(0, second, weight)
