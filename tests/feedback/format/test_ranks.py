"""Places keep the order of what they are made of, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format._ranks import dense_ranks

orders = st.lists(st.none() | st.integers(-3, 3) | st.floats(-5, 5), min_size=2, max_size=6)


@given(orders.filter(lambda order: sum(place is not None for place in order) >= 2))
def test_the_order_of_every_two_is_kept_and_levels_have_no_gaps(order: list[float | None]) -> None:
    found = dense_ranks(order)
    assert [place is None for place in found] == [place is None for place in order]
    both = [(a, b) for a, b in zip(order, found, strict=True) if a is not None and b is not None]
    assert all((a < c) == (b < d) and (a == c) == (b == d) for a, b in both for c, d in both)
    assert sorted({place for place in found if place is not None}) == list(range(len({a for a, _ in both})))
    assert dense_ranks(found) == found


@pytest.mark.parametrize("order", [[], [1], [None, None], [None, 2.0, None]])
def test_fewer_than_two(order: list[float | None]) -> None:
    with pytest.raises(DataError, match="at least two"):
        dense_ranks(order)
