"""SimPO: mean log-probabilities and a margin."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.preference.loss.simpo import SimPO


def test_the_loss_is_the_paper_s(pairs_of):
    pairs = pairs_of([-3.0], [-8.0], tokens=(6, 4))
    log_odds = 2.5 * (-0.5 + 2.0) - 1.4
    assert SimPO(beta=2.5, gamma=1.4)(pairs).item() == pytest.approx(math.log1p(math.exp(-log_odds)), rel=1e-12)


def test_a_longer_response_of_the_same_tokens_earns_the_same(pairs_of):
    loss = SimPO()
    short, long = pairs_of([-3.0], [-3.0], tokens=(2, 2)), pairs_of([-9.0], [-9.0], tokens=(6, 6))
    assert loss.rewards(short.chosen).item() == pytest.approx(loss.rewards(long.chosen).item())


def test_smoothing_is_the_expected_loss_over_wrong_labels(pairs_of):
    pairs = pairs_of([-3.0], [-8.0], tokens=(6, 4))
    log_odds = 2.0 * 1.5 - 1.0
    expected = 0.9 * math.log1p(math.exp(-log_odds)) + 0.1 * math.log1p(math.exp(log_odds))
    assert SimPO(label_smoothing=0.1)(pairs).item() == pytest.approx(expected, rel=1e-12)
