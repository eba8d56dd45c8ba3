"""Adam: weight decay goes into the gradient."""

from __future__ import annotations

import torch
from torch import nn

from rlhf_lightning.optimizer.adam import adam
from tests.optimizer.test_adamw import trained_of


def test_its_weight_decay_is_a_gradient_and_off_by_default():
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    for decay, moves in ((0.0, False), (0.1, True)):
        optimizer = adam(trained_of(layer, weight_decay=0.3), weight_decay=decay)
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
        assert torch.equal(layer.weight, before) is not moves
