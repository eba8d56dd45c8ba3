"""A classifier with one label as the start of a reward model's training."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ClassifierScore, ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.storage.folder import load_reward_model, save_reward_model
from rlhf_lightning.reward.storage.warm_start import warm_start

TEXTS = [("Review of a lamp:", "It is a quiet fan."), ("It", " costs"), ("The kettle", "boils water quickly.")]


@pytest.fixture
def classifier_folder(trunk_folder, tmp_path):
    def save(family: str, labels: int = 1) -> str:
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(trunk_folder(family), num_labels=labels)
        model.save_pretrained(tmp_path / family)
        AutoTokenizer.from_pretrained(trunk_folder(family)).save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return save


def composed(folder: str, head=LinearHead) -> tuple[ComposedScore, object]:
    trunk, tokenizer = load_trunk(folder)
    return ComposedScore(trunk, last, head(32)), tokenizer


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_the_score_of_a_decoders_classifier_becomes_the_linear_head(classifier_folder, family):
    folder = classifier_folder(family)
    net, tokenizer = composed(folder)
    found, note = warm_start(folder, net, "last")
    assert found is net
    assert "its score is trained further" in note
    expected = load_reward_model(folder).eval().score_texts(*zip(*TEXTS, strict=True))
    assert (RewardModel(found, tokenizer, 64).eval().score_texts(*zip(*TEXTS, strict=True)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["bert", "modernbert", "t5", "bart"])
def test_a_classifier_with_layers_of_its_own_is_trained_as_it_is_and_saved_as_one(classifier_folder, family, tmp_path):
    folder = classifier_folder(family)
    net, tokenizer = composed(folder)
    found, note = warm_start(folder, net, "last")
    assert isinstance(found, ClassifierScore)
    assert "it is trained as it is" in note
    model = RewardModel(found, tokenizer, 64)
    expected = load_reward_model(folder).eval().score_texts(*zip(*TEXTS, strict=True))
    assert torch.equal(model.eval().score_texts(*zip(*TEXTS, strict=True)), expected)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model.raw_scores(model.tokenise(TEXTS)).scores.square().sum().backward()
    optimizer.step()
    model.normalise(*zip(*TEXTS, strict=True))
    scores = model.score_texts(*zip(*TEXTS, strict=True))
    save_reward_model(model, tmp_path / "rm", {"head": "linear", "head_settings": {}, "pooling": "last"})
    again = load_reward_model(str(tmp_path / "rm")).eval()
    assert isinstance(again.net, ClassifierScore)
    assert torch.equal(again.score_texts(*zip(*TEXTS, strict=True)), scores)
    assert json.loads((tmp_path / "rm" / "config.json").read_text())["architectures"] == [type(found.classifier).__name__]


def test_another_head_or_pooling_leaves_the_classifiers_behind(classifier_folder):
    folder = classifier_folder("llama")
    for head, pooling in ((MLPHead, "last"), (LinearHead, "mean")):
        net, _ = composed(folder, head)
        before = [value.clone() for value in net.head.state_dict().values()]
        found, note = warm_start(folder, net, pooling)
        assert found is net
        assert "its head is dropped" in note
        assert all(torch.equal(a, b) for a, b in zip(before, net.head.state_dict().values(), strict=True))


def test_what_is_no_classifier_with_one_label_is_a_trunk(classifier_folder, trunk_folder):
    for folder in (trunk_folder("llama"), trunk_folder("bert"), classifier_folder("gpt2", labels=3)):
        net, _ = composed(folder)
        assert warm_start(folder, net, "last") == (net, None)
