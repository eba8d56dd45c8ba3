"""The noisy Bradley-Terry model of comparisons by several annotators.

Own code: crowd-kit's gradient keeps only each annotator's last comparison, it starts at random and hardly regularises.
"""

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
        skill: [A] fraction of an annotator's comparisons that follow the scores, in (0, 1).
        bias: [A] probability that its other comparisons prefer the response that was shown first.
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
    display_order: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    score_spread: float = 2.0,
    skill_spread: float = 1.5,
    bias_spread: float = 1.0,
    iterations: int = 300,
) -> NoisyBradleyTerry:
    """Fit P(first wins) = skill * sigmoid(score difference) + (1 - skill) * sigmoid(bias).

    The model of crowdkit's NoisyBradleyTerry. Maximum a posteriori under normal priors, by L-BFGS from the fractions of wins:
    deterministic. Skills shrink to their mean, which is fitted too.

    Args:
        first, second: [N] indices of the compared responses.
        annotator: [N] indices from 0.
        outcome: [N] 1 if the first won, 0 if the second did, 0.5 for a tie: half a win for each.
        display_order: [N] 1 if the first was shown first, -1 if the second was, 0 if unknown (no bias then); default: all 1.
        weight: [N] of each comparison.
        score_spread, skill_spread, bias_spread: standard deviations of scores, and of the logits of skills and biases.
    """
    first_index, second_index, annotator_index = (torch.as_tensor(column, dtype=torch.long) for column in (first, second, annotator))
    outcome_tensor = torch.as_tensor(outcome, dtype=torch.float64)
    side = torch.ones_like(outcome_tensor) if display_order is None else torch.as_tensor(display_order, dtype=torch.float64)
    weights = torch.ones_like(outcome_tensor) if weight is None else torch.as_tensor(weight, dtype=torch.float64)
    responses, annotators = int(max(first_index.max(), second_index.max())) + 1, int(annotator_index.max()) + 1
    values = [torch.zeros(total, dtype=torch.float64) for total in (responses, annotators, annotators, 1)]
    values[0] += _win_shares(first_index, second_index, outcome_tensor, weights, responses) / score_spread
    for value in values:
        value.requires_grad_()

    def loss() -> Tensor:
        difference = score_spread * (values[0][first_index] - values[0][second_index])
        skill = (_MEAN_SKILL + values[3] + skill_spread * values[1])[annotator_index]
        bias_logit = bias_spread * values[2][annotator_index] * side
        first_wins = torch.logaddexp(logsigmoid(skill) + logsigmoid(difference), logsigmoid(-skill) + logsigmoid(bias_logit))
        second_wins = torch.logaddexp(logsigmoid(skill) + logsigmoid(-difference), logsigmoid(-skill) + logsigmoid(-bias_logit))
        log_likelihood = (weights * (outcome_tensor * first_wins + (1 - outcome_tensor) * second_wins)).sum()
        return -log_likelihood + sum((value**2).sum() for value in values) / 2

    minimise(values, loss, iterations)
    scores, deviation, bias_logit, mean = (value.detach() for value in values)
    skill = torch.sigmoid(_MEAN_SKILL + mean + skill_spread * deviation)
    return NoisyBradleyTerry((score_spread * scores).numpy(), skill.numpy(), torch.sigmoid(bias_spread * bias_logit).numpy())


def _win_shares(first: Tensor, second: Tensor, outcome: Tensor, weight: Tensor, responses: int) -> Tensor:
    """Return [R] (wins - losses) / comparisons: the start, since skills have no gradient at equal scores."""
    gain, total = weight * (2 * outcome - 1), torch.ones(responses, dtype=torch.float64)
    net_wins = torch.zeros(responses, dtype=torch.float64).index_add_(0, first, gain).index_add_(0, second, -gain)
    return net_wins / total.index_add_(0, first, weight).index_add_(0, second, weight)
