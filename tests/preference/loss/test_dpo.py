"""DPO and its variants: closed forms, and what each says about wrong labels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.preference.loss.dpo import DPO, robust_loss
from rlhf_lightning.reward.loss.bradley_terry import bradley_terry_loss


def test_the_loss_and_its_gradient_are_the_paper_s(pairs_of):
    pairs = pairs_of([-3.0, -1.0], [-4.0, -9.0], reference=(-2.5, -5.0))
    loss = DPO(beta=0.5)
    values = loss(pairs)
    for i, (chosen, rejected) in enumerate([(-3.0, -4.0), (-1.0, -9.0)]):
        log_odds = 0.5 * ((chosen + 2.5) - (rejected + 5.0))
        assert values[i].item() == pytest.approx(math.log1p(math.exp(-log_odds)), rel=1e-12)
        wrong = 1 / (1 + math.exp(log_odds))  # eq. 7's weight: how wrong the implicit reward is
        (slope,) = torch.autograd.grad(values[i], pairs.chosen.log_probs, retain_graph=True)
        assert slope[i].item() == pytest.approx(-0.5 * wrong, rel=1e-12)


def test_at_the_reference_every_variant_is_where_nothing_is_known(pairs_of):
    pairs = pairs_of([-2.0], [-5.0], reference=(-2.0, -5.0))
    for loss, expected in (
        (DPO(), math.log(2)),
        (DPO(label_smoothing=0.2), math.log(2)),
        (DPO(variant="robust", label_smoothing=0.2), math.log(2)),
        (DPO(variant="hinge"), 1.0),
        (DPO(length_normalised=True), math.log(2)),
    ):
        assert loss(pairs).item() == pytest.approx(expected, rel=1e-12)


def test_length_normalised_takes_nats_per_token(pairs_of):
    pairs = pairs_of([-6.0], [-4.0], tokens=(3, 2), reference=(-9.0, -2.0))
    log_odds = 0.1 * (3.0 / 3 - -2.0 / 2)
    assert DPO(length_normalised=True)(pairs).item() == pytest.approx(math.log1p(math.exp(-log_odds)), rel=1e-12)


@pytest.mark.parametrize(("log_odds", "expected"), [(0.25, 0.75), (1.0, 0.0), (3.0, 0.0), (-2.0, 3.0)])
def test_hinge(pairs_of, log_odds, expected):
    pairs = pairs_of([log_odds], [0.0], reference=(0.0, 0.0))
    assert DPO(beta=1.0, variant="hinge")(pairs).item() == pytest.approx(expected)


@given(log_odds=st.floats(-30, 30), wrong=st.floats(0, 0.45))
def test_robust_is_right_on_average_over_flipped_labels(log_odds, wrong):
    """Chowdhury et al.: the mean over labels that are wrong with that probability is the loss of the right label."""
    right, flipped = (robust_loss(torch.tensor(sign * log_odds, dtype=torch.float64), wrong).item() for sign in (1, -1))
    plain = bradley_terry_loss(torch.tensor(log_odds, dtype=torch.float64)).item()
    assert (1 - wrong) * right + wrong * flipped == pytest.approx(plain, rel=1e-9, abs=1e-9)


def test_label_smoothing_has_its_minimum_at_the_labels_odds():
    """A share of 0.2 wrong: the best log-odds are those of 0.8, not infinite."""
    log_odds = torch.tensor(math.log(0.8 / 0.2), dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(log_odds, 0.2).backward()
    assert log_odds.grad is not None
    assert abs(log_odds.grad.item()) < 1e-12


def test_a_hinge_knows_no_share_of_wrong_labels():
    with pytest.raises(ConfigError, match=r"label_smoothing=0\.1 means nothing with preference_loss\.variant=hinge"):
        DPO(variant="hinge", label_smoothing=0.1)


def test_without_a_reference_it_says_what_is_missing(pairs_of):
    with pytest.raises(ConfigError, match="reference"):
        DPO()(pairs_of([-1.0], [-2.0]))
