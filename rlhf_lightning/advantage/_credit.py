"""What every advantage estimator shares: discounting over a mask, comparing rows within their group, and the way out.

Shapes: B sequences, T response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Experience, ScoredRollout


def discounted_sum(values: Tensor, mask: Tensor, decay: float, reset: bool = False) -> Tensor:
    """[B, T] sums from the right: s[t] = values[t] + decay * s[t+1].

    A token outside the mask takes no time and adds nothing: it carries the sum of the token after it. With `reset` it starts
    again from 0 instead, so that nothing flows back across a hole of the mask.
    """
    kept = mask.bool()
    carry = values.new_zeros(len(values))
    sums = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        skipped = torch.zeros_like(carry) if reset else carry
        carry = torch.where(kept[:, t], values[:, t] + decay * carry, skipped)
        sums[:, t] = carry
    return sums


def group_sum(values: Tensor, group: Tensor) -> Tensor:
    """[B] values summed over each row's own group; [B] again, one sum per row. Group ids are any integers, in any order."""
    ids, index = torch.unique(group, return_inverse=True)
    return values.new_zeros(len(ids)).index_add(0, index, values)[index]


def row_rewards(scored: ScoredRollout) -> Tensor:
    """[B] what each response earned: the sum of its token rewards, above the lowest of its group.

    Baselines don't see the shift. It makes equal rewards exactly 0: the mean of n equal floats need not be that float, and the
    difference divided by a standard deviation near 0 would teach noise.
    """
    rewards = torch.where(scored.response_mask.bool(), scored.rewards, torch.zeros_like(scored.rewards)).sum(dim=1)
    ids, index = torch.unique(scored.group, return_inverse=True)
    lowest = rewards.new_zeros(len(ids)).scatter_reduce(0, index, rewards, "amin", include_self=False)
    return rewards - lowest[index]


def group_centered_rewards(scored: ScoredRollout) -> tuple[Tensor, Tensor]:
    """[B] row rewards less their group's mean, and [B] the size of each row's group."""
    rewards = row_rewards(scored)
    size = group_sum(torch.ones_like(rewards), scored.group)
    return rewards - group_sum(rewards, scored.group) / size, size


def to_experience(scored: ScoredRollout, advantages: Tensor, returns: Tensor | None = None) -> Experience:
    """The experience: advantages [B, T] (or [B, 1], the same for every token) and returns without gradient, 0 outside the mask.

    Raises:
        DataError: advantages that aren't finite, naming the rows.
    """
    mask = scored.response_mask.bool()
    advantages = torch.where(mask, advantages.detach(), torch.zeros_like(advantages))
    wild = (~torch.isfinite(advantages)).any(dim=1)
    if bool(wild.any()):
        rows = wild.nonzero().flatten().tolist()
        raise DataError(
            f"the advantages of responses {rows[:8]} of this batch are not finite; look at the scorer and the log-probabilities"
        )
    if returns is not None:
        returns = torch.where(mask, returns.detach(), torch.zeros_like(returns))
    return Experience.of(scored, advantages, returns)
