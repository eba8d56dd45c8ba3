"""The score along the response."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rlhf_lightning.reward.explain.trajectory import trajectory
from rlhf_lightning.reward.explain.view import TokenView


def test_it_ends_at_the_score_and_moves_by_each_word(table_model):
    model = table_model()
    view = TokenView(model, ("The lamp:", " a good lamp, a fan."))
    found = trajectory(view)
    table = model.net.table.weight.detach()[view.tokens.ids, 0]
    words = [word for word in view.words if word.part == "response"]
    assert found.words == list(range(len(words) + 1))
    assert found.scores[-1] == pytest.approx(float(table.sum()), abs=1e-5)
    steps = [b - a for a, b in pairwise(found.scores)]
    assert steps == pytest.approx([float(table[list(word.tokens)].sum()) for word in words], abs=1e-5)


def test_a_long_response_is_scored_at_equal_distances(table_model):
    view = TokenView(table_model(), ("p", " a lamp" * 15))
    found = trajectory(view, points=5)
    assert found.words == [0, 8, 15, 22, 30]
    assert found.scores == pytest.approx([trajectory(view).scores[count] for count in found.words], abs=1e-5)
    assert trajectory(TokenView(table_model(), ("p", ""))).words == [0]
