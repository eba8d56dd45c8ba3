"""What annotators have of their own: errors against the sums of probabilities, and a prior that counts once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.reward.loss._annotators import ErrorRates, NoErrors, PerAnnotator, error_model

LOGIT = st.floats(-30, 30)
WHO = torch.tensor([0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@settings(max_examples=60, deadline=None)
@given(logit=LOGIT, error_rate=st.floats(0.01, 0.49))
def test_flipped_log_odds_are_those_of_the_mixed_probability(logit, error_rate):
    rates = ErrorRates(None, error_rate).double()
    found = rates.flip(torch.tensor([logit], dtype=torch.float64), WHO).item()
    p = (1 - error_rate) * sigmoid(logit) + error_rate * sigmoid(-logit)
    assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
    assert rates.flip(torch.tensor([-logit], dtype=torch.float64), WHO).item() == pytest.approx(-found, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(first=st.floats(-20, 0), second=st.floats(-20, 0), error_rate=st.floats(0.01, 0.49))
def test_mixed_probabilities_are_their_weighted_sum(first, second, error_rate):
    told = ErrorRates(None, error_rate).double().mix(*(torch.tensor([x], dtype=torch.float64) for x in (first, second)), WHO)
    assert told.exp().item() == pytest.approx((1 - error_rate) * math.exp(first) + error_rate * math.exp(second), rel=1e-6)


def test_far_log_odds_meet_those_of_the_error_rate():
    logit = torch.tensor([1e5, -1e5, 0.0], requires_grad=True)
    found = ErrorRates(None, 0.2).flip(logit, torch.tensor([0, 0, 0]))
    assert found.tolist() == pytest.approx([math.log(4), -math.log(4), 0.0], abs=1e-5)
    found.sum().backward()
    assert torch.isfinite(logit.grad).all()
    assert isinstance(error_model("none", None, 0.2), NoErrors)
    assert torch.equal(error_model("none", None, 0.2).flip(logit, WHO), logit)


def test_the_prior_of_an_annotator_counts_once_over_all_judgements():
    own = PerAnnotator(torch.tensor([5.0, 3.0, 1.0]), spread=0.7)
    with torch.no_grad():
        own.effects.copy_(torch.tensor([9.0, 1.2, -0.5]))  # the first is nobody's
    who = torch.tensor([0] * 5 + [1] * 3 + [2])
    assert own.penalty(who).sum().item() == pytest.approx(0.5 * (1.2**2 + 0.5**2))
    assert own(torch.tensor([0, 1, 2])).tolist() == pytest.approx([0.0, 0.84, -0.35])


def test_nobody_known_has_nothing_of_their_own_whatever_was_learned():
    own = PerAnnotator(torch.tensor([5.0, 3.0]), spread=1.0)
    with torch.no_grad():
        own.effects.fill_(2.0)
    assert own(torch.tensor([0, 1])).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("judgements", [None, torch.tensor([4.0])])
def test_without_annotators_or_spread_there_is_nothing_to_learn(judgements):
    assert list(PerAnnotator(judgements, 1.0).parameters()) == []
    assert list(PerAnnotator(torch.tensor([1.0, 2.0]), 0.0).parameters()) == []
    assert PerAnnotator(judgements, 1.0)(torch.tensor([0])) == 0.0
