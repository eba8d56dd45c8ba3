"""IPO: a target for the difference of log-ratios."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.preference.loss.ipo import IPO


@pytest.mark.parametrize(("length_normalised", "apart"), [(False, 2.0 - -1.0), (True, 2.0 / 4 - -1.0 / 2)])
def test_the_loss_is_the_square_of_the_distance_from_the_target(pairs_of, length_normalised, apart):
    pairs = pairs_of([-3.0], [-4.0], tokens=(4, 2), reference=(-5.0, -3.0))
    loss = IPO(beta=0.25, length_normalised=length_normalised)
    assert loss(pairs).item() == pytest.approx((apart - 2.0) ** 2, rel=1e-12)
    margin = (loss.rewards(pairs.chosen) - loss.rewards(pairs.rejected)).item()
    assert margin == pytest.approx(0.25 * apart, rel=1e-12)


def test_a_pair_beyond_the_target_is_drawn_back(pairs_of):
    """Where dpo pushes on for ever."""
    pairs = pairs_of([2.0, 8.0, 5.0], [0.0, 0.0, 0.0], reference=(0.0, 0.0))
    IPO(beta=0.1)(pairs).sum().backward()
    assert torch.sign(pairs.chosen.log_probs.grad).tolist() == [-1.0, 1.0, 0.0]
