"""Which features explain scores: planted ones are found, statistics are those of textbooks."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.explain.score_regression import named_features, regress_scores, standardised_features

CHOSEN = {"repetition": {}, "length": {}, "punctuation": {}, "markup": {}}


def some_texts(count: int) -> list[tuple[str, str]]:
    draw = random.Random(0)
    words = ["good", "lamp", "fan", "it", "is", "why", "bad", "kettle"]
    ends = [".", "!", "?", ",", " - "]
    return [
        (f"p{i}", "".join(draw.choice(words) + draw.choice(ends if draw.random() < 0.3 else [" "]) for _ in range(draw.randint(2, 40))))
        for i in range(count)
    ]


TEXTS = some_texts(150)
LENGTHS = torch.tensor([math.log1p(len(response)) for _, response in TEXTS], dtype=torch.float64)


def test_scores_that_are_length_are_explained_by_it_alone():
    found = regress_scores(TEXTS, 3.0 * LENGTHS - 1.0, CHOSEN)
    first = found.families[0]
    assert (first.name, first.alone, first.added) == ("length", pytest.approx(1.0), pytest.approx(1.0))
    assert found.r2 == pytest.approx(1.0)
    assert found.r2_held_out == pytest.approx(1.0)
    assert found.length_correlation == pytest.approx(1.0)
    assert all(family.added == pytest.approx(0.0, abs=1e-6) for family in found.families[1:])
    assert found.deviation == pytest.approx(float((3.0 * LENGTHS).std(correction=0)))


def test_statistics_are_those_of_least_squares_by_hand():
    noise = torch.randn(150, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = LENGTHS + 0.5 * noise
    found = regress_scores(TEXTS, scores, CHOSEN)
    values, standardised = standardised_features(found, TEXTS)
    names = [effect.name for effect in found.effects]
    assert torch.allclose(values[:, names.index("length: log characters")], LENGTHS)
    assert torch.allclose(standardised.mean(0), torch.zeros(1, dtype=torch.float64), atol=1e-9)
    x, y = standardised.numpy(), scores.numpy()

    def residuals(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
        design = np.column_stack([np.ones(len(rows)), rows])
        return target - design @ np.linalg.lstsq(design, target, rcond=1e-6)[0]

    total = ((y - y.mean()) ** 2).sum()
    assert found.r2 == pytest.approx(1 - (residuals(x, y) ** 2).sum() / total, abs=1e-6)
    own = [i for i, name in enumerate(names) if name.startswith("length: ")]
    rest = np.delete(x, own, axis=1)
    shares = {family.name: family for family in found.families}
    assert shares["length"].alone == pytest.approx(1 - (residuals(x[:, own], y) ** 2).sum() / total, abs=1e-6)
    assert shares["length"].unique == pytest.approx(found.r2 - 1 + (residuals(rest, y) ** 2).sum() / total, abs=1e-6)
    assert sum(family.added for family in found.families) == pytest.approx(found.r2)
    length = names.index("length: log characters")
    expected = np.corrcoef(residuals(rest, x[:, length]), residuals(rest, y))[0, 1]
    assert found.length_partial == pytest.approx(expected, abs=1e-6)
    assert found.effects[length].correlation == pytest.approx(np.corrcoef(x[:, length], y)[0, 1], abs=1e-9)
    predicted = sum(effect.slope * x[:, i] for i, effect in enumerate(found.effects)) + y.mean()
    assert ((y - predicted) ** 2).sum() / total == pytest.approx(1 - found.r2, abs=1e-6)
    left = np.zeros(150)
    for fold in range(10):
        held = np.arange(150) % 10 == fold
        design = np.column_stack([np.ones((~held).sum()), x[~held]])
        left[held] = y[held] - np.column_stack([np.ones(held.sum()), x[held]]) @ np.linalg.lstsq(design, y[~held], rcond=1e-6)[0]
    assert found.r2_held_out == pytest.approx(1 - np.square(left).sum() / total, abs=1e-2)


def test_noise_is_explained_in_the_sample_and_not_beyond_it():
    scores = torch.randn(60, generator=torch.Generator().manual_seed(1))
    found = regress_scores(TEXTS[:60], scores, CHOSEN)
    assert 0 < found.r2 < 0.6
    assert found.r2_adjusted < found.r2
    assert found.r2_held_out < 0.1


def test_length_is_always_there_and_sparse_features_never():
    assert list(named_features({"ngrams": {}, "repetition": {}})) == ["length", "repetition"]


def test_what_can_not_be_explained_is_refused():
    with pytest.raises(DataError, match="7 texts are too few"):
        regress_scores(TEXTS[:7], torch.arange(7.0), CHOSEN)
    with pytest.raises(DataError, match="all equal or not finite"):
        regress_scores(TEXTS[:20], torch.ones(20), CHOSEN)
    with pytest.raises(DataError, match="all equal or not finite"):
        regress_scores(TEXTS[:20], torch.arange(20.0) * math.nan, CHOSEN)


def test_fewer_texts_than_features_give_no_statistic_that_pretends():
    found = regress_scores(TEXTS[:9], torch.randn(9, generator=torch.Generator().manual_seed(2)), CHOSEN)
    assert found.r2 == pytest.approx(1.0)
    assert found.r2_held_out is None
    assert found.r2_adjusted is None
