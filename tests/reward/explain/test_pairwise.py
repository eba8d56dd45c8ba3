"""Why one text beats another."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.reward.explain.explanation import ExplainSettings
from rlhf_lightning.reward.explain.pairwise import explain_pair
from rlhf_lightning.reward.explain.score_regression import regress_scores
from rlhf_lightning.reward.regression.feature_score import FeatureScore

GOOD, BAD = ("p", "a good, good lamp."), ("p", "bad")
OTHERS = [("p", "a"), ("p", "a good good good lamp!"), ("pq", "abc def abc"), ("q", "abc, abc?"), ("r", "it is"), ("s", "w. w. w."),
          ("t", "some more words"), ("u", "words, and more words, and words")]  # fmt: skip


def test_a_features_model_s_differences_add_up():
    score = FeatureScore({"length": {}, "punctuation": {}})
    score.prepare(OTHERS)
    score.weight = torch.linspace(-1, 1, len(score.names), dtype=torch.float64)
    found = explain_pair(score, GOOD, BAD, ExplainSettings())
    assert found.is_exact
    assert found.unexplained is None
    assert found.difference == pytest.approx(found.first.score - found.second.score)
    assert sum(one.contribution for one in found.features) == pytest.approx(found.difference, abs=1e-5)
    sizes = [abs(one.contribution) for one in found.features]
    assert sizes == sorted(sizes, reverse=True)
    turned = explain_pair(score, BAD, GOOD, ExplainSettings())
    assert {one.name: -one.contribution for one in turned.features} == pytest.approx({o.name: o.contribution for o in found.features})


def test_another_model_s_differences_are_the_regression_s_and_the_rest_is_reported(table_model):
    model = table_model()
    scores = model.score_texts([p for p, _ in OTHERS], [r for _, r in OTHERS])
    regression = regress_scores(OTHERS, scores, {"length": {}, "punctuation": {}})
    found = explain_pair(model, GOOD, BAD, ExplainSettings(), regression)
    assert not found.is_exact
    assert sum(one.contribution for one in found.features) + found.unexplained == pytest.approx(found.difference, abs=1e-6)
    length = next(one for one in found.features if one.name == "length: log words")
    assert (round(length.first, 4), round(length.second, 4)) == (1.6094, 0.6931)
    assert explain_pair(model, GOOD, BAD, ExplainSettings()).features == []
