"""The score on named features: finite on any text, and explained without a rest."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.registry import register
from rlhf_lightning.reward.regression.family import ScalarFeature, as_family
from rlhf_lightning.reward.regression.feature_score import FeatureScore

registry.load_components()
WITHOUT_FILES = {c.name: {} for c in registry.components("reward_feature") if c.name not in ("lexicon", "embedding")}
WITHOUT_FILES |= {name: {"min_texts": 1} for name in ("ngrams", "character_ngrams")}
WORDS = ["the", "a", "good", "bad", "cat", "dog", "sat", "ran", "12", "7", "and,", "but.", "Why?", "(yes)", "don't", "über", "中文", "भाषा"]


def texts_of(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(" ".join(rng.choices(WORDS, k=4)), " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))) for _ in range(count)]


@pytest.fixture(scope="module")
def score() -> FeatureScore:
    """All features that need no file, with random weights."""
    model = FeatureScore(WITHOUT_FILES)
    model.prepare(texts_of(60))
    model.weight = torch.randn(len(model.names), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.bias = 0.7
    return model


@given(st.text(), st.text())
@settings(max_examples=80, deadline=None)
def test_any_text_has_finite_features(prompt, response):
    for name, given_settings in WITHOUT_FILES.items():
        family = as_family(name, registry.make("reward_feature", name, given_settings))
        family.fit([(prompt, response), ("", "other")])
        (row,) = family.rows([(prompt, response)])
        values = list(row.values()) if isinstance(row, dict) else list(row)
        assert all(map(math.isfinite, values))
        assert isinstance(row, dict) or len(row) == len(family.names)
        assert len(set(family.names)) == len(family.names)


@pytest.mark.parametrize(
    "response", ["", " ", "🙂🙂👩‍👩‍👧", "مرحبا بالعالم؟", "\ud800", "\x00\x01", "a" * 20_000, "=" * 5000, "1+1=" * 3000, "\n" * 3000]
)
def test_odd_texts_have_a_score(score, response):
    assert score.score_texts(["why?"], [response]).isfinite().all()


def test_features_are_standardised(score):
    texts = texts_of(60)
    phi = score.phi(texts)
    sparse = torch.tensor(["grams: " in name for name in score.names])
    torch.testing.assert_close(phi[:, ~sparse].mean(0), torch.zeros(int((~sparse).sum()), dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(phi[:, ~sparse].std(0, correction=0), torch.ones(int((~sparse).sum()), dtype=torch.float64))
    for family in ("ngrams: ", "character_ngrams: "):
        own = torch.tensor([name.startswith(family) for name in score.names])
        assert phi[:, own].var(0, correction=0).sum().item() == pytest.approx(9.0)  # strength 3
        assert (phi[:, own] == 0).any()


def test_the_score_is_w_phi_and_b(score):
    texts = texts_of(40, seed=5)
    expected = (score.phi(texts) @ score.weight + score.bias).float()
    for size in (1, 7, 1024):
        torch.testing.assert_close(score.score_texts(*zip(*texts, strict=True), batch_size=size), expected, rtol=1e-6, atol=1e-6)
    assert score.score_texts([], []).shape == (0,)


@given(st.text(), st.text())
@settings(max_examples=60, deadline=None)
def test_an_explanation_is_the_whole_score(score, prompt, response):
    bias, reasons = score.explain(prompt, response)
    total = bias + math.fsum(reason.contribution for reason in reasons)
    assert total == pytest.approx(float(score._scores([(prompt, response)])[0]), abs=1e-9, rel=1e-9)
    weights = dict(score.weights())
    for reason in reasons:
        assert reason.contribution == pytest.approx(weights[reason.name] * reason.standardised, abs=1e-12)
    assert [abs(r.contribution) for r in reasons] == sorted((abs(r.contribution) for r in reasons), reverse=True)


def test_a_chat_is_read_as_text(score):
    chat = (Message(role="user", content="good cat?"),)
    assert score.score_texts([chat], ["good"]) == score.score_texts(["User: good cat?\nAssistant:"], ["good"])
    assert score.explain(chat, "good") == score.explain("User: good cat?\nAssistant:", "good")


def test_an_explanation_shows_the_value_and_only_the_words_that_are_there(score):
    _, reasons = score.explain("why", "good cat, good")
    by_name = {reason.name: reason for reason in reasons}
    assert by_name["length: log words"].value == pytest.approx(math.log(4))
    assert by_name["ngrams: word: good"].value == pytest.approx(math.log(3))
    assert "ngrams: word: dog" not in by_name


def test_constant_features_are_left_out_and_named():
    model = FeatureScore({"length": {}, "markup": {}})
    model.prepare([("p", "one word"), ("p", "three more words")])
    assert {"markup: bullets", "length: log lines", "length: log sentences"} <= set(model.constant_names)
    assert set(model.names).isdisjoint(model.constant_names)
    assert set(model.names) | set(model.constant_names) == set(model.all_names)
    with pytest.raises(DataError, match="varies"):
        model.prepare([("p", "same"), ("p", "same")])


def test_normalised_scores_have_mean_0_and_variance_1():
    model, texts = FeatureScore({"length": {}, "punctuation": {}}), texts_of(50)
    model.prepare(texts)
    model.weight = torch.arange(len(model.names), dtype=torch.float64)
    before = model.score_texts(*zip(*texts, strict=True))
    model.normalise(*zip(*texts, strict=True))
    after = model.score_texts(*zip(*texts, strict=True))
    assert (after.mean().item(), after.std().item()) == pytest.approx((0, 1), abs=1e-6)
    assert torch.equal(before.argsort(), after.argsort())


def test_a_plain_function_is_a_feature_of_its_own_name(monkeypatch):
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    register("reward_feature", "shouts")(shouts)
    model = FeatureScore({"shouts": {"mark": "?"}})
    assert isinstance(model.families["shouts"], ScalarFeature)
    model.prepare([("", "a?"), ("", "b")])
    assert model.names == ["shouts"]
    assert model.phi([("", "a?"), ("", "b")]).flatten().tolist() == pytest.approx([1, -1])


def shouts(prompt: str, response: str, *, mark: str = "!") -> float:
    """How often a mark stands in the response."""
    return response.count(mark)


def test_no_features_are_refused():
    with pytest.raises(ConfigError, match="reward_feature"):
        FeatureScore({})
