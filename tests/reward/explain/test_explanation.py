"""The whole explanation of one text."""

from __future__ import annotations

from itertools import pairwise

import pytest
import scipy.stats
import torch

from rlhf_lightning.reward.explain.attribution import integrated_gradients
from rlhf_lightning.reward.explain.explanation import (
    ExplainSettings,
    Occlusion,
    explain_pair,
    explain_text,
    occlusions,
    rank_agreement,
    trajectory,
)
from rlhf_lightning.reward.explain.score_regression import regress_scores
from rlhf_lightning.reward.explain.view import TokenView
from rlhf_lightning.reward.regression.feature_score import FeatureScore


def test_the_planted_word_is_found(table_model):
    model = table_model()
    row = model.tokenizer(" fan", add_special_tokens=False)["input_ids"]
    table = model.net.table.weight.detach()
    table.mul_(0.1)
    table[row] = 5.0 / len(row)
    model.net.table.weight.data.copy_(table)
    found = explain_text(model, ("The kettle:", " it isn't a lamp, a fan is good."), ExplainSettings(baseline="zero"))
    top = max(found.words, key=lambda word: abs(word.contribution))
    assert (top.part, top.text) == ("response", "fan")
    assert top.contribution == pytest.approx(5.0, abs=0.5)
    worst = max(found.occlusions, key=lambda one: one.drop)
    assert found.words[worst.first].text == "fan"
    moves = [b - a for a, b in pairwise(found.trajectory.scores)]
    said = [word.text for word in found.words if word.part == "response"]
    assert said[moves.index(max(moves))] == "fan"
    assert sum(word.contribution for word in found.words) == pytest.approx(found.score - found.baseline_score, abs=1e-3)
    assert found.is_complete
    assert found.agreement == pytest.approx(1.0)


@pytest.mark.parametrize("text", [("", " good"), ("The lamp:", ""), ("", "")])
def test_empty_texts_are_explained_too(family_model, text):
    found = explain_text(family_model("llama"), text, ExplainSettings())
    assert len(found.words) == sum(len(part.replace(":", " :").split()) for part in text)
    assert found.trajectory.scores[-1] == pytest.approx(found.score, abs=1e-5)


def test_a_features_model_gives_its_exact_reasons():
    score = FeatureScore({"length": {}, "repetition": {}})
    score.prepare([("p", "a"), ("p", "a good good good lamp"), ("pq", "abc def abc")])
    score.weight = score.weight + 0.5
    score.bias = 0.25
    found = explain_text(score, ("p", "a good lamp"), ExplainSettings())
    assert found.bias == 0.25
    assert found.bias + sum(reason.contribution for reason in found.reasons) == pytest.approx(found.score, abs=1e-5)
    without = float(score.score_texts(["p"], ["a lamp"]))
    good = next(word for word in found.words if word.text == "good")
    assert good.contribution == pytest.approx(found.score - without, abs=1e-6)
    assert (found.gap, found.steps, found.baseline_score) == (None, None, None)


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


TEXT = ("The lamp:", " a good lamp, it isn't bad — 良い.")


@pytest.mark.parametrize(("how", "baseline"), [("remove", "zero"), ("replace", "neutral")])
def test_on_a_sum_over_tokens_each_drop_is_the_word_s_attribution(table_model, how, baseline):
    model = table_model()
    view = TokenView(model, TEXT)
    found = integrated_gradients(model, view.tokens, view.fixed, baseline)
    shares = [float(found.tokens[list(word.tokens)].sum()) for word in view.words]
    drops = occlusions(view, found.score, how)
    assert [one.drop for one in drops] == pytest.approx(shares, abs=1e-4)
    assert rank_agreement(shares, drops) == pytest.approx(1.0)


def test_more_words_than_allowed_lose_several_at_a_time(table_model):
    view = TokenView(table_model(), TEXT)
    each = occlusions(view, 1.0)
    runs = occlusions(view, 1.0, max_occlusions=4)
    assert len(runs) <= 4
    assert [(run.first, run.end) for run in runs[:2]] == [(0, runs[0].end), (runs[0].end, 2 * runs[0].end)]
    assert runs[-1].end == len(view.words) == len(each)
    score = 1.0 - each[0].drop
    assert score == pytest.approx(float(view.scores_without([[0]], "remove")), abs=1e-5)


def test_the_agreement_is_spearman_s_over_runs():
    shares, drops = [0.1, 0.4, -0.2, 0.3, 0.0], [Occlusion(0, 2, 0.2), Occlusion(2, 3, -0.5), Occlusion(3, 5, 0.9)]
    assert rank_agreement(shares, drops) == pytest.approx(scipy.stats.spearmanr([0.5, -0.2, 0.3], [0.2, -0.5, 0.9]).statistic)
    assert rank_agreement(shares, drops[:2]) is None
    assert rank_agreement([1.0] * 5, [Occlusion(i, i + 1, 0.1 * i) for i in range(5)]) is None


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
