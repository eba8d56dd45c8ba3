"""The whole explanation of one text."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rlhf_lightning.reward.explain.explanation import ExplainSettings, explain_text
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
