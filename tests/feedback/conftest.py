"""A filter's whole work at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from rlhf_lightning.feedback.cleaning import Cleaning, Filter
from rlhf_lightning.flow import Feedback

Cleaned = Callable[[Filter, Sequence[Feedback]], tuple[list[Feedback], Cleaning]]


def kept_and_done(component: Filter, feedback: Sequence[Feedback]) -> tuple[list[Feedback], Cleaning]:
    cleaning = Cleaning()
    return list(component(feedback, cleaning)), cleaning


@pytest.fixture(scope="session")
def cleaned() -> Cleaned:
    """What a filter keeps of some records, and what it says it did."""
    return kept_and_done
