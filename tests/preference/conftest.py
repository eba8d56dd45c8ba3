"""Answers, and small feedback for the preference room's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.preference.record import Answers, Compared


@pytest.fixture
def pairs_of() -> Callable[..., Compared]:
    """Pairs in float64 from lists of log-probabilities, with as many tokens and with the reference's where given."""

    def make(chosen: Sequence[float], rejected: Sequence[float], tokens: Sequence[int] = (1, 1), reference: Sequence[float] | None = None):
        def answers(log_probs: Sequence[float], count: int, ref: float | None) -> Answers:
            given = torch.tensor(log_probs, dtype=torch.float64, requires_grad=True)
            return Answers(given, torch.full(given.shape, count), None if ref is None else torch.full(given.shape, ref).double())

        refs = (None, None) if reference is None else reference
        return Compared(answers(chosen, tokens[0], refs[0]), answers(rejected, tokens[1], refs[1]))

    return make


@pytest.fixture
def feedback() -> list[Feedback]:
    """What was said about three prompts, in every kind that compares, and thumbs."""
    scale = (1.0, 7.0)
    return [
        Feedback(prompt="It", responses=(" costs", " boils"), judgement=Ranking(ranks=(0, 1))),
        Feedback(prompt="It", responses=(" costs", " is a fan", " boils"), judgement=Ranking(ranks=(1, 0, 2)), weight=3.0),
        Feedback(prompt="The", responses=(" kettle", " quiet kettle"), judgement=Edit()),
        Feedback(prompt="The", responses=(" lamp",), judgement=Rating(value=2, scale=scale), annotator="a"),
        Feedback(prompt="The", responses=(" fan",), judgement=Rating(value=6, scale=scale), annotator="a"),
        Feedback(prompt="The", responses=(" desk",), judgement=Rating(value=1, scale=scale), annotator="b"),
        Feedback(prompt="A", responses=(" rug",), judgement=Thumbs(up=True)),
        Feedback(prompt="A", responses=(" pen",), judgement=Thumbs(up=False), weight=2.0),
        Feedback(prompt="It", responses=(" is",), judgement=Thumbs(up=True)),
    ]
