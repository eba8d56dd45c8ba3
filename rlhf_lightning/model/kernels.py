"""Faster kernels for the layers of a transformers model, put in place without touching its parameters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation")
"""transformers' classes of 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""


def use_fast_kernels(model: nn.Module) -> None:
    """Replace the tanh GELU that GPT-2 and its kin write out in seven kernels by PyTorch's one, and let linear layers take their float32
    products through `product`. In place; equal but for rounding (1e-6), and what is saved stays as it was."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child).__name__ in WRITTEN_OUT:
                setattr(parent, name, nn.GELU(approximate="tanh"))
    if onednn_is_faster():
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = FastLinear
            elif type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers."):
                layer.__class__ = _conv1d()


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than what PyTorch takes by itself: Intel's MKL leaves the AVX-512 of other makers'
    processors unused (205 against 92 GFLOP/s on a core of an AMD EPYC 9005)."""
    has = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    cpu = Path("/proc/cpuinfo")
    return has and torch.backends.cpu.get_cpu_capability() == "AVX512" and cpu.is_file() and "GenuineIntel" not in cpu.read_text()


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """[m, k] left times the transpose of [n, k] right, plus a bias [n]; differentiable as often as one likes."""
    if onednn_is_faster() and _fits(left, right):
        return cast(Tensor, _Product.apply(left, right, bias))
    return nn.functional.linear(left, right, bias)


def _fits(left: Tensor, right: Tensor) -> bool:
    plain = left.dtype == right.dtype == torch.float32 and left.device.type == right.device.type == "cpu" and left.numel() > 0
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(left, right)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        left, right = ctx.saved_tensors
        to_left, to_right, to_bias = ctx.needs_input_grad
        return (
            product(gradient, right.T) if to_left else None,
            # In the weight's own order, so that its gradient isn't copied.
            (product(left.T, gradient.T).T if right.stride(0) == 1 else product(gradient.T, left.T)) if to_right else None,
            gradient.sum(0) if to_bias else None,
        )


class FastLinear(nn.Linear):
    """nn.Linear through `product`."""

    def forward(self, input: Tensor) -> Tensor:
        return product(input.reshape(-1, self.in_features), self.weight, self.bias).view(*input.shape[:-1], self.out_features)


def _conv1d_forward(self: Any, x: Tensor) -> Tensor:
    return product(x.reshape(-1, x.shape[-1]), self.weight.T, self.bias).view(*x.shape[:-1], self.nf)


@functools.cache
def _conv1d() -> type[nn.Module]:
    """transformers' Conv1D, whose weight is [k, n], through `product`."""
    from transformers.pytorch_utils import Conv1D

    return type("FastConv1D", (Conv1D,), {"forward": _conv1d_forward, "__module__": __name__})


def __getattr__(name: str) -> Any:
    """Pickle asks for FastConv1D here, which is made once transformers is loaded."""
    if name == "FastConv1D":
        return _conv1d()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
