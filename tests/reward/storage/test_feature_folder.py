"""A saved score on named features: the same bits, and damage is reported with the folder."""

from __future__ import annotations

import json

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.storage.feature_folder import CARD, WEIGHTS, load_feature_score, save_feature_score

registry.load_components()
TEXTS = [(f"prompt {i % 4}", " ".join(["good", "bad", "cat,", "12", "Why?"][: 1 + i % 5] * (1 + i % 3))) for i in range(40)]


@pytest.fixture(scope="module")
def score() -> FeatureScore:
    """A score with random weights."""
    model = FeatureScore({"length": {}, "punctuation": {}, "ngrams": {"min_texts": 1}})
    model.prepare(TEXTS)
    model.weight = torch.randn(len(model.names), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.bias = 0.7
    return model


def test_saved_and_loaded_scores_are_bitwise_the_same(score, tmp_path):
    save_feature_score(score, tmp_path / "model", {"accuracy": {"pair": 0.7}})
    other = load_feature_score(tmp_path / "model")
    assert torch.equal(other._scores(TEXTS), score._scores(TEXTS))
    assert other.names == score.names
    assert other.explain(*TEXTS[0]) == score.explain(*TEXTS[0])
    card = json.loads((tmp_path / "model" / CARD).read_text())
    assert (card["head"], card["accuracy"]) == ("features", {"pair": 0.7})
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [WEIGHTS, CARD]


@pytest.mark.parametrize("damage", [CARD, WEIGHTS, "no file", "other card"])
def test_a_damaged_folder_is_named(score, tmp_path, damage):
    folder = tmp_path / "model"
    save_feature_score(score, folder, {})
    if damage == "no file":
        (folder / WEIGHTS).unlink()
    elif damage == "other card":
        card = json.loads((folder / CARD).read_text())
        card["features"]["ngrams"]["state"]["ngrams"].pop()
        (folder / CARD).write_text(json.dumps(card))
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:50])
    with pytest.raises(DataError, match=r"model"):
        load_feature_score(folder)
