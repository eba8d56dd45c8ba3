"""Places of ranked responses, as every format with rankings makes them."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.errors import DataError


def places(order: Sequence[float | None]) -> tuple[int | None, ...]:
    """Places from 0 without gaps, from any numbers of which lower is better; equal is a tie, None was left unranked.

    Raises:
        DataError: fewer than two are ranked.
    """
    ranked = [place for place in order if place is not None]
    if len(ranked) < 2:
        raise DataError(f"only {len(ranked)} of {len(order)} responses has a place; a ranking needs at least two that have")
    level = {place: i for i, place in enumerate(sorted(set(ranked)))}
    return tuple(None if place is None else level[place] for place in order)
