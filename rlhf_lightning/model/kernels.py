"""Faster kernels for the layers of a transformers model, with the same parameters."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

UNFUSED_GELU = ("NewGELUActivation", "FastGELUActivation")
"""transformers' classes of 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""


def use_fast_kernels(model: nn.Module) -> None:
    """Fuse GPT-2's tanh GELU of seven kernels, and run float32 linear layers through `product`, in place.

    Equal but for rounding (1e-6); saved models are unaffected.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child).__name__ in UNFUSED_GELU:
                setattr(parent, name, nn.GELU(approximate="tanh"))
    if onednn_is_faster():
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = FastLinear
            elif type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers."):
                layer.__class__ = _conv1d()


@functools.cache
def onednn_is_faster() -> bool:
    """True if oneDNN multiplies float32 matrices faster than PyTorch's default, MKL.

    MKL uses AVX-512 on Intel's processors only (92 against 205 GFLOP/s on a core of an AMD EPYC 9005).
    """
    has = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    cpu = Path("/proc/cpuinfo")
    return has and torch.backends.cpu.get_cpu_capability() == "AVX512" and cpu.is_file() and "GenuineIntel" not in cpu.read_text()


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [m, k] times the transpose of b [n, k], plus a bias [n]; differentiable any number of times."""
    if onednn_is_faster() and _runs_on_onednn(a, b):
        return cast(Tensor, _Product.apply(a, b, bias))
    return nn.functional.linear(a, b, bias)


def _runs_on_onednn(a: Tensor, b: Tensor) -> bool:
    plain = a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu" and a.numel() > 0
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        needs_a, needs_b, needs_bias = ctx.needs_input_grad
        return (
            product(gradient, b.T) if needs_a else None,
            # In the memory order of the weight, so that its gradient isn't copied.
            (product(a.T, gradient.T).T if b.stride(0) == 1 else product(gradient.T, a.T)) if needs_b else None,
            gradient.sum(0) if needs_bias else None,
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
    """Create FastConv1D when pickle looks it up, since its base class needs transformers."""
    if name == "FastConv1D":
        return _conv1d()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
