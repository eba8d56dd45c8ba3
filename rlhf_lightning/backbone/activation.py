"""GELU in one kernel where transformers writes it out in seven."""

from __future__ import annotations

from torch import nn

WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation")
"""transformers' classes of 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""


def fuse_activations(model: nn.Module) -> None:
    """Replace the written-out tanh GELU of GPT-2 and its kin by PyTorch's, in place. Equal but for rounding (1e-6), without parameters,
    so that what is saved stays as it was."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child).__name__ in WRITTEN_OUT:
                setattr(parent, name, nn.GELU(approximate="tanh"))
