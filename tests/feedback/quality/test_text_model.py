"""The text model against scikit-learn's logistic regression, and its promise to say nothing of other prompts' folds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rlhf_lightning.feedback.judgements import prompt_share
from rlhf_lightning.feedback.quality.text_model import FeatureRows, feature_difference, features, log_odds, signed_features

RNG = np.random.default_rng(0)
WORTH = RNG.normal(size=40)


def worlds(n: int) -> tuple[list[dict[int, float]], list[str], np.ndarray, np.ndarray]:
    """Pairs of texts whose words decide: rows better - worse, prompts, both texts' counts, and the true margin of what was said."""
    rows, prompts, counts = [], [], []
    for i in range(n):
        words = RNG.integers(40, size=(2, 8))
        better, worse = sorted(words, key=lambda one: -WORTH[one].sum())
        rows.append(feature_difference(*(features(" ".join(f"w{w}" for w in one)) for one in (better, worse))))
        prompts.append(f"question {i}")
        counts.append(np.bincount(better, minlength=40) - np.bincount(worse, minlength=40))
    return rows, prompts, np.array(counts), np.array(counts) @ WORTH


def test_each_fold_is_scikit_learn_s_regression_on_the_others() -> None:
    rows, prompts, _, _ = worlds(300)
    flip = RNG.random(300) < 0.2
    signed = [{c: -v if f else v for c, v in row.items()} for row, f in zip(rows, flip, strict=True)]
    found = log_odds(FeatureRows.of(signed), prompts, np.ones(300), ridge=1.0, folds=4)
    columns = sorted({c for row in rows for c in row})
    dense = np.zeros((300, len(columns)))
    for i, row in enumerate(rows):
        dense[i, [columns.index(c) for c in row]] = list(row.values())
    fold = (np.array([prompt_share(prompt) for prompt in prompts]) * 4).astype(int)
    expected = np.zeros(300)
    label = ~flip
    for part in range(4):
        # Without a constant, a row and its negative with the other label are the same example.
        model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=2000).fit(dense[fold != part], label[fold != part])
        expected[fold == part] = model.decision_function(dense[fold == part])
    expected *= np.where(flip, -1, 1)
    scale = found @ expected / (expected @ expected)
    np.testing.assert_allclose(found, scale * expected, atol=0.02 * scale * np.abs(expected).max())
    # The one scale for all makes what was said most likely: the derivative of that likelihood is zero there.
    assert (found / (1 + np.exp(found))).sum() == pytest.approx(0, abs=0.1)


def test_log_odds_tell_right_from_wrong_where_words_decide() -> None:
    rows, prompts, _, _ = worlds(800)
    flip = RNG.random(800) < 0.1
    found = log_odds(
        FeatureRows.of({c: -v if f else v for c, v in row.items()} for row, f in zip(rows, flip, strict=True)), prompts, np.ones(800)
    )
    assert (found[flip] < 0).mean() > 0.85
    assert (found[~flip] > 0).mean() > 0.85


def test_words_that_tell_nothing_say_nothing() -> None:
    rows, prompts, _, _ = worlds(400)
    sign = np.where(RNG.random(400) < 0.5, 1, -1)
    found = log_odds(FeatureRows.of({c: s * v for c, v in row.items()} for row, s in zip(rows, sign, strict=True)), prompts, np.ones(400))
    assert np.abs(found).mean() < 0.25


def test_too_few_prompts_say_nothing() -> None:
    rows, _, _, _ = worlds(100)
    assert not log_odds(FeatureRows.of(rows), ["the same"] * 100, np.ones(100)).any()


def test_rows_taken_are_the_rows() -> None:
    rows = [{3: 1.0, 1: 2.0}, {}, {0: -1.0}, {2: 5.0, 0: 1.0}]
    texts = FeatureRows.of(rows)
    import torch

    vector = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)
    assert texts.times(vector).tolist() == [1020.0, 0.0, -1.0, 501.0]
    assert texts.take(np.array([3, 1, 0])).times(vector).tolist() == [501.0, 0.0, 1020.0]
    assert FeatureRows.of([{}, {}]).times(vector).tolist() == [0.0, 0.0]


def test_a_difference_of_equal_texts_is_nothing_and_the_opposite_judgement_the_negative() -> None:
    one, other = features("Good, good day"), features("bad day")
    assert feature_difference(one, one) == {}
    assert feature_difference(one, other) == {c: -v for c, v in feature_difference(other, one).items()}
    assert signed_features(one, False) == {c: -v for c, v in signed_features(one, True).items()}
    assert features("GOOD good DAY!") != features("good day")
    assert {c for c in features("Day, GOOD")} == set(one)
