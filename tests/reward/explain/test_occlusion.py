"""Occlusion: exact where the score is known, and of one mind with the gradients there."""

from __future__ import annotations

import pytest
import scipy.stats

from rlhf_lightning.reward.explain.attribution import integrated_gradients
from rlhf_lightning.reward.explain.occlusion import Occlusion, occlusions, rank_agreement
from rlhf_lightning.reward.explain.view import TokenView

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
