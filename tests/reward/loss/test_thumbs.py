"""Thumbs: the logistic likelihood, and the threshold it recovers."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.thumbs import LogisticThumbs


def test_the_loss_is_the_negative_log_likelihood(batch_with):
    loss = LogisticThumbs()
    with torch.no_grad():
        loss.threshold.fill_(0.4)
    thumbs = {"item": torch.tensor([2, 0, 1]), "up": torch.tensor([1.0, 0.0, 1.0]), "weight": torch.tensor([1.0, 2.0, 0.5])}
    losses, weights = loss(ScoredBatch(scores=torch.tensor([1.5, 0.4, -1.0])), batch_with(thumbs=thumbs))
    expected = [math.log(1 + math.exp(1.4)), math.log(1 + math.exp(1.1)), math.log(2)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(weights, thumbs["weight"])


def test_far_scores_stay_finite(batch_with):
    batch = batch_with(thumbs={"item": torch.tensor([0, 1]), "up": torch.tensor([0.0, 0.0])})
    assert LogisticThumbs()(ScoredBatch(scores=torch.tensor([1e4, -1e4])), batch)[0].tolist() == [1e4, 0]


def test_a_threshold_and_a_score_are_recovered_in_closed_form(batch_with, minimised):
    """70 of 100 up on one text, 20 of 100 on another whose score is held at 0: threshold -ln(20/80), score ln(70/30) + threshold."""
    up = torch.tensor([1.0] * 70 + [0.0] * 30 + [1.0] * 20 + [0.0] * 80)
    batch = batch_with(thumbs={"item": torch.tensor([0] * 100 + [1] * 100), "up": up})
    loss, score = LogisticThumbs(), torch.zeros(1, requires_grad=True)
    minimised([score, *loss.parameters()], lambda: loss(ScoredBatch(scores=torch.cat([score, torch.zeros(1)])), batch)[0].mean())
    assert loss.threshold.item() == pytest.approx(math.log(4), abs=1e-3)
    assert score.item() == pytest.approx(math.log(7 / 3) + math.log(4), abs=1e-3)


def test_no_thumbs_cost_nothing(batch_with):
    losses, weights = LogisticThumbs()(ScoredBatch(scores=torch.tensor([1.0])), batch_with())
    assert losses.shape == weights.shape == (0,)


def test_thresholds_of_annotators_shrink_to_the_common_one(batch_with, minimised):
    """At score 0 the share of thumbs-ups is all there is: who gave many is near it, who gave few is near everybody."""
    who = [1] * 400 + [2] * 400 + [3] * 4
    up = [1.0] * 320 + [0.0] * 80 + [1.0] * 200 + [0.0] * 200 + [0.0] * 4
    batch = batch_with(thumbs={"item": torch.zeros(804, dtype=torch.long), "up": torch.tensor(up), "annotator": torch.tensor(who)})
    loss, scored = (
        LogisticThumbs(torch.tensor([0.0, 400.0, 400.0, 4.0]), threshold_spread=1.0).double(),
        ScoredBatch(scores=torch.zeros(1).double()),
    )
    minimised(list(loss.parameters()), lambda: loss(scored, batch)[0].mean())
    own = (loss.threshold + loss.annotator_threshold(torch.tensor([0, 1, 2, 3]))).tolist()
    assert own[0] == loss.threshold.item()
    assert own[1] == pytest.approx(-math.log(4), abs=0.05)
    assert own[2] == pytest.approx(0.0, abs=0.05)
    assert 0.5 < own[3] < 3.0  # four thumbs-downs alone would put it at infinity
    # Where the slope of likelihood and prior cancel: ups - n sigmoid(-threshold) = -own.
    for n, ups, place in ((400, 320, 1), (400, 200, 2), (4, 0, 3)):
        deviation = own[place] - loss.threshold.item()
        assert ups - n / (1 + math.exp(own[place])) == pytest.approx(-deviation, abs=1e-4)


def test_a_thumb_that_turns_the_other_way(batch_with):
    loss = LogisticThumbs(annotator_noise="learned", error_rate=0.25)
    batch = batch_with(thumbs={"item": torch.tensor([0, 0]), "up": torch.tensor([1.0, 0.0])})
    p = 1 / (1 + math.exp(-0.8))
    expected = [-math.log(0.75 * p + 0.25 * (1 - p)), -math.log(0.75 * (1 - p) + 0.25 * p)]
    assert loss(ScoredBatch(scores=torch.tensor([0.8])), batch)[0].tolist() == pytest.approx(expected, rel=1e-5)
