"""The cumulative logit: probabilities by definition, thresholds in closed form, and ratings that are no level."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.ordinal import Ordinal, cumulative_logit
from rlhf_lightning.reward.loss.thumbs import LogisticThumbs

DOUBLE = torch.float64


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("position", [-7.0, -0.4, 0.0, 2.5])
def test_probabilities_are_differences_of_the_cumulative_ones_and_sum_to_one(position):
    thresholds = [-2.0, -0.7, 0.4, 2.2]
    log_gaps = torch.tensor(thresholds, dtype=DOUBLE).diff().log().expand(5, 3)
    found = cumulative_logit(
        torch.full((5,), position, dtype=DOUBLE), torch.arange(5), torch.full((5,), -2.0, dtype=DOUBLE), log_gaps
    ).exp()
    cumulative = [0.0, *(sigmoid(t - position) for t in thresholds), 1.0]
    assert found.tolist() == pytest.approx([b - a for a, b in itertools.pairwise(cumulative)], abs=1e-12)
    assert found.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_gradients_are_right_and_far_positions_finite():
    level, position = torch.tensor([0, 1, 2, 3]), torch.tensor([0.3, -1.0, 0.2, 2.0], dtype=DOUBLE, requires_grad=True)
    first = torch.full((4,), -1.0, dtype=DOUBLE, requires_grad=True)
    log_gaps = torch.tensor([[0.1, -0.3]] * 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, f, g: cumulative_logit(p, level, f, g), (position, first, log_gaps))
    far = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    found = cumulative_logit(far, level, torch.full((4,), -1.0), torch.zeros(4, 2))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(far.grad).all()
    assert found[0].item() == pytest.approx(-1e4 - 1.0)


def test_two_levels_are_thumbs(batch_with):
    up, scored = torch.tensor([1.0, 0.0, 1.0]), ScoredBatch(scores=torch.tensor([0.3, -2.0, 0.1]))
    items = torch.arange(3)
    thumbs = LogisticThumbs()(scored, batch_with(thumbs={"item": items, "up": up}))[0]
    assert torch.allclose(Ordinal(levels=2)(scored, batch_with(ratings={"item": items, "unit": up}))[0], thumbs)


def test_at_the_start_each_level_is_as_likely(batch_with):
    batch = batch_with(ratings={"item": torch.zeros(5, dtype=torch.long), "unit": torch.arange(5) / 4})
    assert Ordinal(levels=5)(ScoredBatch(scores=torch.zeros(1)), batch)[0].exp().tolist() == pytest.approx([5.0] * 5, rel=1e-5)


def test_thresholds_are_recovered_in_closed_form_for_each_aspect(batch_with, minimised):
    """At score 0, P(level <= k) is the share of ratings up to k."""
    counts = {0: [10, 20, 40, 30], 1: [60, 10, 10, 20]}
    rows = [(aspect, level / 3) for aspect, row in counts.items() for level, count in enumerate(row) for _ in range(count)]
    ratings = {
        "item": torch.zeros(len(rows), dtype=torch.long),
        "aspect": torch.tensor([a for a, _ in rows]),
        "unit": torch.tensor([unit for _, unit in rows]),
    }
    loss = Ordinal(None, 2, levels=4)
    minimised([loss.first, loss.log_gaps], lambda: loss(ScoredBatch(scores=torch.zeros(1)), batch_with(ratings=ratings))[0].mean())
    for aspect, row in counts.items():
        shares = [sum(row[: k + 1]) / 100 for k in range(3)]
        assert loss.thresholds[aspect].tolist() == pytest.approx([math.log(s / (1 - s)) for s in shares], abs=1e-3)


def test_a_lenient_annotator_s_shift_and_one_who_answers_at_random(batch_with):
    loss = Ordinal(torch.tensor([1.0, 1.0]), levels=3, shift_spread=2.0, annotator_noise="learned", error_rate=0.3)
    with torch.no_grad():
        loss.annotator_shift.effects.copy_(torch.tensor([0.0, 0.5]))
    ratings = {"item": torch.tensor([0, 0]), "unit": torch.tensor([1.0, 1.0]), "annotator": torch.tensor([0, 1])}
    found = loss(ScoredBatch(scores=torch.tensor([0.2])), batch_with(ratings=ratings))[0]
    top = math.log(2)  # the upper threshold of three even levels
    expected = [-math.log(0.7 * sigmoid(0.2 + shift - top) + 0.3 / 3) + prior for shift, prior in ((0.0, 0.0), (1.0, 0.125))]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_rating_between_two_levels_is_refused_with_advice_or_rounded(batch_with):
    def rated(first: float):
        return batch_with(ratings={"item": torch.tensor([0, 0]), "unit": torch.tensor([first, 1.0])})

    scored = ScoredBatch(scores=torch.zeros(1))
    with pytest.raises(ConfigError, match=r"ordinal.levels=5, .*: 7 would hold all ratings .*reward_loss.ordinal.off_level=round"):
        Ordinal(levels=5)(scored, rated(1 / 6))
    assert Ordinal(levels=7)(scored, rated(1 / 6))[0].shape == (2,)
    rounded = Ordinal(levels=5, off_level="round")(scored, rated(1 / 6))[0]
    assert torch.equal(rounded, Ordinal(levels=5)(scored, rated(0.25))[0])
