"""Parts of the advantage estimators: discounted sums, group baselines and the resulting experience.

An estimator takes rewards and response_mask [B, T], and, where it needs "groups", group [B], of any sizes; a response alone in its group
has the advantage 0. It raises DataError for advantages that aren't finite, or too large to whiten.

Shapes: B sequences, T response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Experience, ScoredRollout


def discounted_sum(values: Tensor, mask: Tensor, decay: float, reset: bool = False) -> Tensor:
    """Sums [B, T] from the right: s[t] = values[t] + decay * s[t+1].

    A token outside the mask adds no time and no value: it carries the sum of the token after it. With `reset` the sum restarts at 0
    there instead: nothing flows back across a hole of the mask.
    """
    inside = mask.bool()
    carry = values.new_zeros(len(values))
    sums = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        skipped = torch.zeros_like(carry) if reset else carry
        carry = torch.where(inside[:, t], values[:, t] + decay * carry, skipped)
        sums[:, t] = carry
    return sums


def group_sum(values: Tensor, group: Tensor) -> Tensor:
    """Sum of values [B] over each row's group, [B]; group ids are any integers, in any order."""
    ids, index = torch.unique(group, return_inverse=True)
    return values.new_zeros(len(ids)).index_add(0, index, values)[index]


def row_rewards(scored: ScoredRollout) -> Tensor:
    """Sum of each response's token rewards, [B], relative to the lowest of its group.

    The shift cancels in the baselines and makes equal rewards exactly 0: the mean of n equal floats may differ from them, and the
    difference divided by a standard deviation near 0 would be noise.
    """
    rewards = torch.where(scored.response_mask.bool(), scored.rewards, torch.zeros_like(scored.rewards)).sum(dim=1)
    ids, index = torch.unique(scored.group, return_inverse=True)
    lowest = rewards.new_zeros(len(ids)).scatter_reduce(0, index, rewards, "amin", include_self=False)
    return rewards - lowest[index]


def group_centered_rewards(scored: ScoredRollout) -> tuple[Tensor, Tensor]:
    """Row rewards [B] minus their group's mean, and the size [B] of each row's group."""
    rewards = row_rewards(scored)
    size = group_sum(torch.ones_like(rewards), scored.group)
    return rewards - group_sum(rewards, scored.group) / size, size


def to_experience(scored: ScoredRollout, advantages: Tensor, returns: Tensor | None = None) -> Experience:
    """Add advantages and returns to a rollout, without gradient and 0 outside the mask.

    Advantages are [B, T], or [B, 1] for all tokens of a row.

    Raises:
        DataError: advantages that aren't finite, naming the rows.
    """
    mask = scored.response_mask.bool()
    advantages = torch.where(mask, advantages.detach(), torch.zeros_like(advantages))
    not_finite = (~torch.isfinite(advantages)).any(dim=1)
    if bool(not_finite.any()):
        rows = not_finite.nonzero().flatten().tolist()
        raise DataError(
            f"the advantages of responses {rows[:8]} of this batch are not finite; look at the scorer and the log-probabilities"
        )
    if returns is not None:
        returns = torch.where(mask, returns.detach(), torch.zeros_like(returns))
    return Experience.of(scored, advantages, returns)
