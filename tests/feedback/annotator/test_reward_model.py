"""feedback_annotator=reward_model: rankings by scores, with noise of a known size."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.feedback.annotator.reward_model import GoldRewardModel
from rlhf_lightning.interfaces import AnnotatorContext
from rlhf_lightning.task.reviews import Reviews


@pytest.fixture(scope="module")
def gold_of(tmp_path_factory):
    def make(**settings):
        context = AnnotatorContext(
            Reviews(demonstrations=2), tmp_path_factory.getbasetemp(),
            load_scorer=lambda path: lambda prompts, responses: [float(text) for text in responses],
        )  # fmt: skip
        return GoldRewardModel(context, path="unused", **settings)

    return make


def test_ranks_are_those_of_the_scores_and_equal_texts_tie(gold_of):
    (record,) = gold_of().judge([("p", ["1", "3", "2", "3"]), ("q", ["1"])], number=1)
    assert record.judgement.ranks == (2, 0, 1, 0)
    assert gold_of().judge([("p", ["1", "2"])], number=1, kinds=("rating",)) == []


@pytest.mark.parametrize(
    ("settings", "expected"), [({"temperature": 1.0}, 1 / (1 + math.exp(-1))), ({"error_rate": 0.5}, 0.75), ({"error_rate": 1.0}, 0.5)]
)
def test_noise_has_its_size_and_a_round_again_is_the_same(gold_of, settings, expected):
    groups = [(f"p{i}", ["1", "2"]) for i in range(2000)]
    feedback = gold_of(**settings).judge(groups, number=1)
    assert sum(record.judgement.ranks == (1, 0) for record in feedback) / 2000 == pytest.approx(expected, abs=0.035)
    assert gold_of(**settings).judge(groups, number=1) == feedback != gold_of(**settings).judge(groups, number=2)


def test_a_round_learns_from_a_gold_model(command, world):
    outcome = command(*world.rounds("feedback_annotator=reward_model", f"feedback_annotator.reward_model.path={world.reward_model}"))
    assert outcome.code == 0, outcome.error
