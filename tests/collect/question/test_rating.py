"""Ratings: the scale's levels and no other number."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.collect.questions import ItemView
from rlhf_lightning.errors import ConfigError

SHOWN = ItemView("p", ["one", "two"], ["m1", "m2"], annotator="ada", seconds=2.0)


def test_each_level_of_the_scale_becomes_a_rating():
    question = RatingQuestion(low=0, high=1, step=0.1, display="slider", aspect="tone")
    [record] = question.feedback(question.parse(0.30000001, SHOWN, 1), SHOWN, 1)
    assert record.judgement.value == pytest.approx(0.3)
    assert (record.responses, record.models, record.positions) == (("two",), ("m2",), (1,))
    assert (record.judgement.scale, record.judgement.aspect, record.annotator, record.seconds) == ((0, 1), "tone", "ada", 2.0)


@pytest.mark.parametrize("value", [0, 6, 2.5, True, "3", None, float("nan"), [3]])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="number"):
        RatingQuestion().parse(value, SHOWN, 0)


@pytest.mark.parametrize("settings", [{"low": 5, "high": 1}, {"step": 0.3}, {"high": 100}])
def test_a_scale_that_is_none_is_refused(settings):
    with pytest.raises(ConfigError, match=r"collect_question\.rating"):
        RatingQuestion(**settings)
