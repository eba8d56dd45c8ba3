"""The expected level of a scale."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.reward.head.ordinal import OrdinalHead


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def moved(levels: int, seed: int = 0) -> OrdinalHead:
    """A head whose parameters are no longer those of the start."""
    torch.manual_seed(seed)
    head = OrdinalHead(6, levels=levels)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    return head


@given(st.integers(2, 9), st.integers(0, 99))
def test_the_score_is_the_expected_level_in_its_unit(levels, seed):
    head, phi = moved(levels, seed), torch.randn(4, 6)
    thresholds, unit = head.thresholds.tolist(), head.log_unit.exp().item()
    assert len(thresholds) == levels - 1
    assert thresholds == sorted(thresholds)
    probabilities, scores = head.level_probabilities(phi), head(phi)
    for row, score, latent in zip(probabilities.tolist(), scores.tolist(), head.latent(phi).tolist(), strict=True):
        above = [1.0, *(sigmoid(latent - t) for t in thresholds), 0.0]
        assert row == pytest.approx([a - b for a, b in itertools.pairwise(above)], abs=1e-5)
        expected = sum(level * p for level, p in enumerate(row))
        assert score == pytest.approx(unit * (expected - (levels - 1) / 2), abs=1e-4)


def test_it_starts_with_levels_alike_and_the_slope_of_a_linear_head():
    torch.manual_seed(0)
    for levels in (2, 3, 5, 10):
        head = OrdinalHead(6, levels=levels)
        nothing = torch.zeros(1, 6, requires_grad=True)
        assert torch.allclose(head.level_probabilities(nothing), torch.full((1, levels), 1 / levels), atol=1e-6)
        score = head(nothing)
        assert score.item() == pytest.approx(0, abs=1e-6)
        (slope,) = torch.autograd.grad(score.sum(), nothing)
        assert torch.allclose(slope[0], head.latent.weight.weight[0], atol=1e-5)
    assert OrdinalHead(9999).latent.weight.weight.std().item() == pytest.approx(1 / math.sqrt(10_000), rel=0.05)


def test_the_score_has_a_best_and_a_worst():
    head, phi = moved(5), torch.randn(1, 6)
    edge = 2 * head.log_unit.exp()
    away = 1000 * phi * head.latent(phi).sign()
    assert head(away).item() == pytest.approx(edge.item(), rel=1e-5)
    assert head(-away).item() == pytest.approx(-edge.item(), rel=1e-5)


def test_comparisons_alone_train_every_parameter():
    head, phi = moved(4), torch.randn(8, 6)
    scores = head(phi)
    torch.nn.functional.softplus(scores[4:] - scores[:4]).sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in head.parameters())
