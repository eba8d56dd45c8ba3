"""AdamW by its closed form, its null settings, and what weight decay leaves out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.optimization.parameters import OptimizationDefaults, ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.optimizer.adamw import adamw


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear, self.norm = nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4)


def trained_of(module: nn.Module, **defaults) -> TrainedParameters:
    return TrainedParameters([ParameterGroup("model", trained_parameters(module), 0.5)], OptimizationDefaults(**defaults))


def test_the_first_step_by_hand():
    weight = nn.Linear(1, 1, bias=False)
    start, gradient = weight.weight.item(), -3.0
    optimizer = adamw(trained_of(weight, weight_decay=0.2, eps=1e-3))
    weight.weight.grad = torch.tensor([[gradient]])
    optimizer.step()
    # Both averages are those of one gradient, and the weight shrinks by lr x weight_decay before.
    assert weight.weight.item() == pytest.approx(start * (1 - 0.5 * 0.2) - 0.5 * gradient / (abs(gradient) + 1e-3), abs=1e-6)


def test_a_null_setting_is_the_training_s_and_a_given_one_is_not():
    optimizer = adamw(trained_of(Layer(), betas=(0.7, 0.8), weight_decay=0.03))
    assert [(g["betas"], g["eps"], g["weight_decay"]) for g in optimizer.param_groups] == [((0.7, 0.8), 1e-8, 0.03)]
    optimizer = adamw(trained_of(Layer()), betas=(0.5, 0.6), eps=1e-2, weight_decay=0.0, no_decay=("biases",))
    assert [(g["betas"], g["eps"], g["weight_decay"]) for g in optimizer.param_groups] == [((0.5, 0.6), 1e-2, 0.0)]


@pytest.mark.parametrize(
    ("kinds", "plain"),
    [
        (("biases",), {"linear.bias", "norm.bias"}),
        (("norms", "biases"), {"linear.bias", "norm.bias", "norm.weight"}),
        (("embeddings",), {"embedding.weight"}),
    ],
)
def test_weight_decay_leaves_out_the_listed_parameters(kinds, plain):
    layer = Layer()
    names = {id(parameter): name for name, parameter in layer.named_parameters()}
    decayed, rest = adamw(trained_of(layer), no_decay=kinds).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    assert {names[id(parameter)] for parameter in rest["params"]} == plain
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
