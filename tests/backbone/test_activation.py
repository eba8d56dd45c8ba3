from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from rlhf_lightning.backbone.activation import fuse_activations


def test_a_written_out_gelu_becomes_one_kernel_and_others_stay():
    model = nn.Sequential(ACT2FN["gelu_new"], nn.Sequential(ACT2FN["gelu_fast"]), nn.ReLU())
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    expected = [ACT2FN["gelu_new"](x), ACT2FN["gelu_fast"](x)]
    fuse_activations(model)
    found = [model[0], model[1][0]]
    assert [type(module) for module in (*found, model[2])] == [nn.GELU, nn.GELU, nn.ReLU]
    for module, value in zip(found, expected, strict=True):
        assert (module(x) - value).abs().max() < 1e-6
