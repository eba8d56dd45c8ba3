from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from rlhf_lightning.advantage._credit import discounted_sum, group_sum, row_rewards, to_experience
from rlhf_lightning.errors import DataError


def test_the_rows_that_are_not_finite_are_named(scored_of: Any) -> None:
    advantages = torch.tensor([[0.0, 1.0], [float("inf"), 0.0], [0.0, float("nan")], [float("nan"), 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]])
    with pytest.raises(DataError, match=re.escape("responses [1, 3]")):
        to_experience(scored_of(mask), advantages)


def test_one_advantage_per_row_is_spread_over_its_tokens(scored_of: Any) -> None:
    made = to_experience(scored_of(torch.tensor([[1, 1, 0], [1, 0, 0]])), torch.tensor([[2.0], [3.0]]))
    assert torch.equal(made.advantages, torch.tensor([[2.0, 2.0, 0.0], [3.0, 0.0, 0.0]]))


@pytest.mark.parametrize(("reset", "expected"), [(False, [3.5, 5.0, 5.0, 10.0]), (True, [1.0, 0.0, 5.0, 10.0])])
def test_the_sum_over_a_hole(reset: bool, expected: list[float]) -> None:
    values, mask = torch.tensor([[1.0, 77.0, 0.0, 10.0]]), torch.tensor([[True, False, True, True]])
    assert discounted_sum(values, mask, 0.5, reset).tolist() == [expected]


def test_group_ids_are_any_integers_in_any_order() -> None:
    group = torch.tensor([9, -1, 9, 10**12])
    assert group_sum(torch.tensor([1.0, 2.0, 4.0, 8.0]), group).tolist() == [5.0, 2.0, 5.0, 8.0]


def test_row_rewards_start_at_the_lowest_of_the_group(scored_of: Any) -> None:
    scored = scored_of(torch.ones(4, 2), scores=torch.tensor([5.0, -2.0, 3.0, 1.0]), group=torch.tensor([0, 1, 0, 1]))
    assert row_rewards(scored).tolist() == [2.0, 0.0, 0.0, 3.0]


def test_what_comes_out_carries_no_gradient(scored_of: Any) -> None:
    given = torch.ones(1, 2, requires_grad=True)
    made = to_experience(scored_of(torch.ones(1, 2)), given * 2, given * 3)
    assert not made.advantages.requires_grad
    assert made.returns is not None
    assert not made.returns.requires_grad


def test_of_many_wild_rows_the_first_eight_are_named(scored_of: Any) -> None:
    with pytest.raises(DataError, match=re.escape("responses [0, 1, 2, 3, 4, 5, 6, 7] of")):
        to_experience(scored_of(torch.ones(20, 1)), torch.full((20, 1), float("inf")))
