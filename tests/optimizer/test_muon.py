"""Muon's matrices take orthogonal steps, and AdamW trains the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.optimizer.muon import muon
from tests.optimizer.test_adamw import trained_of


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layers, self.head = nn.Embedding(9, 8), nn.ModuleList([nn.Linear(8, 8)]), nn.Linear(8, 1)


def test_only_matrices_of_layers_take_its_steps():
    torch.manual_seed(0)
    model = Model()
    optimizer = muon(trained_of(model, weight_decay=0.0))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, rest = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert hidden == {"layers.0.weight"}
    assert rest == {"embedding.weight", "layers.0.bias", "head.weight", "head.bias"}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    step = before["layers.0.weight"] - model.layers[0].weight.detach()
    # Singular values near 1, times the scale that gives a step Adam's size: 0.2 x sqrt(8).
    values = torch.linalg.svdvals(step) / (0.5 * 0.2 * 8**0.5)
    assert values.min() > 0.4
    assert values.max() < 1.4
    assert torch.allclose((before["head.bias"] - model.head.bias).abs(), torch.tensor(0.5), atol=1e-3)


@pytest.mark.parametrize("model", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2, bias=False))])
def test_a_model_of_one_kind_alone_is_trained_too(model):
    assert len(muon(trained_of(model)).param_groups) == 1
