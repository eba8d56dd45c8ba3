"""ORPO: likelihood and odds ratio by hand, and finite where a response is certain."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.preference.loss.orpo import ORPO, log_odds


def test_the_loss_is_the_paper_s(pairs_of):
    pairs = pairs_of([-3.0], [-8.0], tokens=(6, 4))
    p, q = math.exp(-0.5), math.exp(-2.0)
    ratio = (p / (1 - p)) / (q / (1 - q))
    assert ORPO(beta=0.3)(pairs).item() == pytest.approx(0.5 + 0.3 * math.log(1 + 1 / ratio), rel=1e-12)


def test_beta_0_is_supervised_fine_tuning_on_the_better_responses(pairs_of):
    pairs = pairs_of([-3.0, -1.0], [-8.0, -2.0], tokens=(6, 4))
    assert ORPO(beta=0.0)(pairs).tolist() == pytest.approx([0.5, 1 / 6])


def test_it_needs_no_reference_and_sums_up_to_finite_numbers(pairs_of):
    pairs = pairs_of([0.0, -1e-12, -800.0], [-800.0, 0.0, 0.0], tokens=(1, 1))
    values = ORPO()(pairs)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(pairs.chosen.log_probs.grad).all()
    assert torch.isfinite(pairs.rejected.log_probs.grad).all()


def test_log_odds_are_those_of_the_probability():
    for p in (1e-6, 0.2, 0.5, 0.9, 0.9999):
        assert log_odds(torch.tensor(math.log(p), dtype=torch.float64)).item() == pytest.approx(math.log(p / (1 - p)), rel=1e-7, abs=1e-9)
