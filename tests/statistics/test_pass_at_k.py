"""pass@k against counting all subsets."""

from __future__ import annotations

import itertools

import pytest

from rlhf_lightning.statistics.pass_at_k import pass_at_k


@pytest.mark.parametrize(("count", "passed", "k"), [(6, 2, 3), (6, 0, 2), (6, 6, 1), (5, 4, 2), (4, 1, 4)])
def test_it_counts_subsets(count: int, passed: int, k: int) -> None:
    subsets = list(itertools.combinations([1] * passed + [0] * (count - passed), k))
    assert pass_at_k(count, passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(("count", "passed", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0)])
def test_too_few_samples(count: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of {count}"):
        pass_at_k(count, passed, k)
