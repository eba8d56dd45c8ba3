"""r = w·phi."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.head.linear import LinearHead


def test_the_score_is_the_inner_product():
    head, phi = LinearHead(7), torch.randn(5, 7)
    assert torch.allclose(head(phi), phi @ head.weight.weight[0], atol=1e-6)
    assert head(phi).shape == (5,)
    assert head(torch.zeros(1, 7)).item() == 0
    assert [name for name, _ in head.named_parameters()] == ["weight.weight"]


def test_w_starts_at_the_published_deviation():
    torch.manual_seed(0)
    weight = LinearHead(9999).weight.weight
    assert weight.std().item() == pytest.approx(1 / math.sqrt(10_000), rel=0.05)
    assert abs(weight.mean().item()) < 0.0005
