"""A small network on phi(x, y)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("reward_head", "mlp")
class MLPHead(nn.Module):
    """One hidden layer with GELU, [B, D] to [B]. The output layer starts at N(0, 1/(hidden+1)), bias 0.

    Args:
        hidden: width of the hidden layer.
        dropout: probability of dropping a hidden unit in training.
    """

    def __init__(self, width: int, *, hidden: PositiveInt = 256, dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        super().__init__()
        output = nn.Linear(hidden, 1)
        nn.init.normal_(output.weight, std=1 / math.sqrt(hidden + 1))
        nn.init.zeros_(output.bias)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), output)

    def forward(self, phi: Tensor) -> Tensor:
        score: Tensor = self.layers(phi)
        return score.squeeze(-1)
