"""What holds for every reduction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.policy.reduction.fixed_length import fixed_length
from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean
from rlhf_lightning.policy.reduction.sequence_sum import sequence_sum
from rlhf_lightning.policy.reduction.token_mean import token_mean

pytestmark = pytest.mark.parametrize("reduction", [token_mean, sequence_mean, sequence_sum, fixed_length])
MASK = (torch.arange(6) < torch.tensor([6, 1, 4, 0, 3, 2])[:, None]).long()


def test_a_batch_without_tokens_is_0_with_zero_gradient_whatever_stands_there(reduction: Any) -> None:
    per_token = torch.tensor([[float("nan"), float("inf")]], requires_grad=True)
    loss = reduction(per_token, torch.zeros(1, 2))
    loss.backward()
    assert loss == 0
    assert torch.equal(per_token.grad, torch.zeros(1, 2))  # type: ignore[arg-type]


def test_it_is_linear_so_its_gradient_is_the_weight_of_each_token(reduction: Any) -> None:
    """So a batch may be split: weights of the whole batch, summed over any micro-batches, give the whole batch's loss."""
    torch.manual_seed(0)
    per_token = torch.randn(6, 6, dtype=torch.float64)
    ones = torch.ones_like(per_token).requires_grad_()
    (weights,) = torch.autograd.grad(reduction(ones, MASK), ones)
    for parts in ([6], [3, 3], [1, 2, 3], [1] * 6):
        split = sum((part * w).sum() for part, w in zip(per_token.split(parts), weights.split(parts), strict=True))
        assert torch.isclose(torch.as_tensor(split), reduction(per_token, MASK), rtol=1e-12)


def test_order_of_rows_and_more_padding_do_not_matter(reduction: Any) -> None:
    torch.manual_seed(0)
    per_token = torch.randn(6, 6, dtype=torch.float64)
    loss, order = reduction(per_token, MASK), torch.randperm(6)
    assert torch.isclose(reduction(per_token[order], MASK[order]), loss, rtol=1e-12)
    padded = [torch.nn.functional.pad(x, (0, 5), value=v) for x, v in ((per_token, 9.0), (MASK, 0))]
    assert torch.isclose(reduction(*padded), loss, rtol=1e-12)


def test_a_doubled_batch_has_the_same_loss(reduction: Any) -> None:
    per_token = torch.arange(36.0, dtype=torch.float64).view(6, 6)
    assert torch.isclose(reduction(per_token.repeat(2, 1), MASK.repeat(2, 1)), reduction(per_token, MASK), rtol=1e-12)
