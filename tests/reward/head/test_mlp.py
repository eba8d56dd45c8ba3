"""One hidden layer."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.head.mlp import MLPHead


def test_the_score_is_that_of_two_layers_with_gelu():
    torch.manual_seed(0)
    head, phi = MLPHead(7, hidden=11), torch.randn(5, 7)
    parameters = dict(head.named_parameters())
    w1, b1, w2, b2 = (parameters[f"layers.{i}.{name}"] for i in (0, 3) for name in ("weight", "bias"))
    inner = phi @ w1.T + b1
    expected = (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))) @ w2[0] + b2
    assert torch.allclose(head(phi), expected, atol=1e-6)
    assert head(phi).shape == (5,)


def test_the_output_layer_starts_at_the_published_deviation():
    torch.manual_seed(0)
    output = MLPHead(2, hidden=9999).layers[3]
    assert output.weight.std().item() == pytest.approx(1 / math.sqrt(10_000), rel=0.05)
    assert output.bias.item() == 0


def test_dropout_acts_in_training_alone():
    head, phi = MLPHead(7, hidden=64, dropout=0.5), torch.randn(5, 7)
    assert not torch.equal(head.train()(phi), head(phi))
    assert torch.equal(head.eval()(phi), head(phi))
