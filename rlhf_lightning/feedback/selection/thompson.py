"""Pairs of the best responses by two random members."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from rlhf_lightning.feedback.acquisition import Candidates, posterior_of, turns
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register

SAMPLES = 64
"""Samples of the posterior, where there is no ensemble."""


@register("feedback_selection", "thompson")
def thompson(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Double Thompson sampling: two members' best responses to a prompt, in random order of prompts.

    Members are an ensemble's, or samples of the last layer's Laplace posterior. The second is drawn until it prefers another response than
    the first (H. Wu and X. Liu 2016; Dwaracherla et al. 2024, arXiv 2402.00396); a pair's probability is computed from all members at
    once. A pair that no two members prefer comes last. No prompt gets a second pair before every prompt has one.
    """
    candidates = Candidates.of(pool)
    share = best_shares(pool, generator)
    a, b = share[candidates.first], share[candidates.second]
    probability = torch.where((a > 0) & (b > 0), a * b * (1 / (1 - a).clamp(min=1e-12) + 1 / (1 - b).clamp(min=1e-12)), 0.0)
    # A race draws a prompt's pairs in proportion to their probabilities.
    noise = torch.rand(len(candidates), generator=generator, dtype=torch.float64).clamp(min=1e-300)
    order = (noise.log() / probability.clamp(min=1e-12)).argsort(descending=True, stable=True)
    groups = candidates.pairs[order, 0]
    prompt_order = torch.randperm(len(pool.groups), generator=generator)
    order = order[(turns(groups) * len(pool.groups) + prompt_order[groups]).argsort()][:budget]
    return candidates.choices(order, probability[order])


def best_shares(pool: SelectionPool, generator: Generator) -> Tensor:
    """[N] share of the members by which a response is the best one of its prompt."""
    members = pool.members
    if members is None:
        assert pool.scores is not None
        assert pool.features is not None
        members = pool.scores + posterior_of(pool).samples(SAMPLES, generator) @ pool.features.T
    shares = [
        part.argmax(1).bincount(minlength=part.shape[1]) / len(part)
        for part in members.split([len(responses) for _, responses in pool.groups], 1)
        if part.shape[1]
    ]
    return torch.cat(shares).double()
