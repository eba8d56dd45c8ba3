from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from rlhf_lightning.model import kernels
from rlhf_lightning.model.kernels import product, use_fast_kernels

needs_onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="a PyTorch without oneDNN")


@pytest.fixture
def onednn(monkeypatch):
    monkeypatch.setattr(kernels, "onednn_is_faster", lambda: True)


def test_a_written_out_gelu_becomes_one_kernel_and_others_stay():
    model = nn.Sequential(ACT2FN["gelu_new"], nn.Sequential(ACT2FN["gelu_fast"]), nn.ReLU())
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    expected = [ACT2FN["gelu_new"](x), ACT2FN["gelu_fast"](x)]
    use_fast_kernels(model)
    found = [model[0], model[1][0]]
    assert [type(module) for module in (*found, model[2])] == [nn.GELU, nn.GELU, nn.ReLU]
    for module, value in zip(found, expected, strict=True):
        assert (module(x) - value).abs().max() < 1e-6


@needs_onednn
@pytest.mark.parametrize("layer", [nn.Linear(24, 40), nn.Linear(24, 40, bias=False), Conv1D(40, 24)], ids=["linear", "no bias", "conv1d"])
def test_a_fast_layer_gives_the_outputs_and_gradients_of_the_layer_it_was(onednn, layer):
    fast = copy.deepcopy(layer)
    use_fast_kernels(fast)
    assert type(fast) is not type(layer)
    assert isinstance(fast, type(layer))
    assert fast.state_dict().keys() == layer.state_dict().keys()
    results = []
    for one in (layer, fast):
        x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out = one(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in one.parameters())])
    for found, expected in zip(results[1], results[0], strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # As the optimiser keeps it: a gradient in another order than its weight would be copied in each step.
    assert fast.weight.grad.stride() == fast.weight.stride()


@needs_onednn
def test_a_fast_layer_leaves_other_precisions_to_pytorch(onednn):
    layer = nn.Linear(8, 6)
    fast = copy.deepcopy(layer)
    use_fast_kernels(fast)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        assert torch.equal(fast(x), layer(x))
    assert torch.equal(fast.double()(x.double()), layer.double()(x.double()))
    assert fast.float()(torch.zeros(0, 8)).shape == (0, 6)


@needs_onednn
def test_a_product_is_differentiable_twice(onednn):
    left, right = torch.randn(4, 3), torch.randn(5, 3)

    def penalty(multiply) -> list[torch.Tensor]:
        a, b = left.clone().requires_grad_(), right.clone().requires_grad_()
        (slope,) = torch.autograd.grad(multiply(a, b).pow(3).sum(), a, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), (a, b)))

    for found, expected in zip(penalty(product), penalty(lambda a, b: a @ b.T), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_a_model_with_fast_layers_can_be_pickled(onednn):
    model = nn.Sequential(nn.Linear(4, 4), Conv1D(4, 4))
    use_fast_kernels(model)
    again = pickle.loads(pickle.dumps(model))
    x = torch.randn(2, 4)
    assert torch.equal(again(x), model(x))
