"""stage=explain by its command: neural and features models, pairs and single texts, pages and JSON."""

from __future__ import annotations

import html
import json
import math
import re

import pytest


def explained(outcome) -> dict:
    assert outcome.code == 0, outcome.error
    return json.loads((outcome.folder / "explanation.json").read_text())


def test_words_add_up_to_the_scores_of_the_reward_model(command, world):
    outcome = command(*world.explain("stage.limit=4"))
    told = explained(outcome)
    assert outcome.result()["objective"] == sum(len(case["texts"]) for case in told["cases"])
    assert [case["kind"] for case in told["cases"]] == ["pair", "rating", "rating", "edit"]
    for case in told["cases"]:
        for text in case["texts"]:
            added = sum(word["contribution"] for word in text["words"])
            assert added == pytest.approx(text["score"] - text["baseline_score"], abs=1e-3)
            assert text["is_complete"]
            said = "".join(word["text"] for word in text["words"] if word["part"] == "response")
            assert said == text["response"].replace(" ", "")
            assert text["trajectory"]["scores"][-1] == pytest.approx(text["score"], abs=1e-4)
            assert text["trajectory"]["words"][0] == 0
    pair = told["cases"][0]
    assert pair["difference"] == pytest.approx(pair["texts"][0]["score"] - pair["texts"][1]["score"])
    assert pair["agrees"] == (pair["difference"] > 0)
    assert sum(one["contribution"] for one in pair["features"]) + pair["unexplained"] == pytest.approx(pair["difference"], abs=1e-6)
    assert told["regression"]["families"][0]["name"] == "length"


def test_the_page_shows_every_text_and_the_terminal_the_words(command, world):
    outcome = command(*world.explain())
    told = explained(outcome)
    page = (outcome.folder / "explanation.html").read_text()
    plain = html.unescape(re.sub(r"<[^>]+>", "", page))
    for case in told["cases"]:
        for text in case["texts"]:
            assert text["response"] in plain
            assert f"{text['score']:.3f}" in plain
    assert 'class="up l5"' in page or 'class="down l5"' in page
    assert "What carried the scores" in outcome.out
    assert "explanation.html" in outcome.out


def test_a_features_model_is_explained_exactly(command, world, tmp_path):
    from rlhf_lightning.reward.regression.feature_score import FeatureScore
    from rlhf_lightning.reward.storage.feature_folder import save_feature_score

    score = FeatureScore({"length": {}, "repetition": {}})
    texts = [("The lamp:", " a good lamp."), ("The lamp:", " bad, bad lamp"), ("The fan:", " it is fan fan fan.")]
    score.prepare(texts)
    score.weight = score.weight + 0.5
    save_feature_score(score, tmp_path / "rm", {})
    told = explained(command(*world.explain(f"stage.model={tmp_path / 'rm'}")))
    for case in told["cases"]:
        for text in case["texts"]:
            assert text["bias"] + sum(reason["contribution"] for reason in text["reasons"]) == pytest.approx(text["score"], abs=1e-5)
    pair = told["cases"][0]
    assert pair["is_exact"]
    assert sum(one["contribution"] for one in pair["features"]) == pytest.approx(pair["difference"], abs=1e-5)
    assert told["regression"]["r2"] == pytest.approx(1.0, abs=1e-3)


def test_disagreements_come_with_the_clearest_first(command, world):
    told = explained(command(*world.explain("stage.order=disagreements", "stage.limit=50")))
    differences = [case["difference"] for case in told["cases"]]
    assert all(difference <= 0 for difference in differences)
    assert differences == sorted(differences)


def test_too_few_texts_for_a_regression_is_a_note(command, world):
    outcome = command(*world.explain("stage.texts=2", "stage.limit=1"))
    assert explained(outcome)["regression"] is None
    assert "too few to say which features" in " ".join(outcome.out.split())
    assert math.isfinite(outcome.result()["objective"])


def test_a_model_must_be_named(command, world):
    words = [word for word in world.explain() if not word.startswith("stage.model")]
    outcome = command(*words)
    assert outcome.code == 2
    assert "stage.model" in outcome.error
