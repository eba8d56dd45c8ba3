"""Dense ranks of responses, for every format with rankings."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.errors import DataError


def dense_ranks(order: Sequence[float | None]) -> tuple[int | None, ...]:
    """Convert numbers (lower is better) to ranks from 0 without gaps; equal is a tie, None is unranked.

    Raises:
        DataError: fewer than two are ranked.
    """
    ranked = [rank for rank in order if rank is not None]
    if len(ranked) < 2:
        raise DataError(f"only {len(ranked)} of {len(order)} responses has a place; a ranking needs at least two that have")
    dense_rank = {rank: i for i, rank in enumerate(sorted(set(ranked)))}
    return tuple(None if rank is None else dense_rank[rank] for rank in order)
