"""Features of a pool under each kind of reward model."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.feedback.acquisition import choose_questions
from rlhf_lightning.feedback.selection.d_optimal import d_optimal
from rlhf_lightning.feedback.selection.thompson import thompson
from rlhf_lightning.reward import pool_features as module
from rlhf_lightning.reward.evaluation.comparisons import Comparison
from rlhf_lightning.reward.head.ensemble import EnsembleHead
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.head.token import TokenHead
from rlhf_lightning.reward.pool_features import linear_weight, pool_features, selection_pool
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.statistics.laplace import likeliest_error_rate

GROUPS = [(f"The lamp {i}:", [f"good {'very ' * i}lamp", f"bad lamp {i}", "so so!", "It is a lamp."]) for i in range(6)]
TEXTS = [(prompt, text) for prompt, of in GROUPS for text in of]
PAST = [Comparison("ranking", prompt, of[0], of[1], "") for prompt, of in GROUPS[:3]]


@pytest.mark.parametrize(("family", "head"), [("gpt2", LinearHead), ("t5", LinearHead), ("bert", MLPHead), ("gpt2", TokenHead)])
def test_scores_are_linear_in_the_features(model_of, family, head):
    model = model_of(family, pooling=mean, head=head)
    features, scores, members = pool_features(model, TEXTS, batch_size=5)
    assert members is None
    torch.testing.assert_close(scores.float(), model.score_texts(*zip(*TEXTS, strict=True)), atol=1e-5, rtol=1e-4)
    weight = linear_weight(features, scores)
    torch.testing.assert_close((features - features.mean(0)) @ weight, scores - scores.mean(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pool_features(model, TEXTS)[0], features, atol=1e-5, rtol=1e-4)


def test_an_ensemble_has_members(model_of):
    model = model_of("gpt2", head=lambda width: EnsembleHead(width, members=3, coef=0.0))
    pool = selection_pool(model, GROUPS, PAST)
    assert pool.members.shape == (3, 24)
    torch.testing.assert_close(pool.members.mean(0), pool.scores)
    assert len(thompson(pool, 6, torch.Generator().manual_seed(0))) == 6


def test_a_regression_and_the_earlier_comparisons(monkeypatch):
    score = FeatureScore({"length": {}, "ngrams": {"min_texts": 1}})
    score.prepare(TEXTS)
    score.weight = torch.randn(len(score.weight), generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    score.normalise(*zip(*TEXTS, strict=True))
    pool = selection_pool(score, GROUPS, PAST)
    torch.testing.assert_close((pool.scores / score.deviation).float(), score.score_texts(*zip(*TEXTS, strict=True)))
    torch.testing.assert_close(pool.past_differences[1], score.phi(TEXTS)[4] - score.phi(TEXTS)[5])
    torch.testing.assert_close(pool.past_scores[1], pool.scores[4] - pool.scores[5])
    assert pool.precision > 0
    chosen = choose_questions("d_optimal", d_optimal, pool, 10, torch.Generator(), share_random=0.2)
    assert [choice.selected_by for choice in chosen] == ["random"] * 2 + ["d_optimal"] * 8
    # Wide features are projected, and distances remain.
    monkeypatch.setattr(module, "MAX_WIDTH", 10)
    narrow = selection_pool(score, GROUPS, [])
    assert narrow.features.shape[1] <= 24
    torch.testing.assert_close(
        torch.cdist(narrow.features, narrow.features), torch.cdist(pool.features, pool.features), atol=1e-6, rtol=1e-6
    )
    assert narrow.error_rate == 0


def test_the_likeliest_error_rate():
    generator = torch.Generator().manual_seed(0)
    gaps = 3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    right = torch.rand(20_000, generator=generator, dtype=torch.float64) < 0.8 * torch.sigmoid(gaps) + 0.1
    assert likeliest_error_rate(torch.where(right, gaps, -gaps)) == pytest.approx(0.2, abs=0.03)
