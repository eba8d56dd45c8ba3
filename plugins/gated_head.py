"""Example plugin: `reward_head=gated`, a reward head in one file."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("reward_head", "gated")
class GatedHead(nn.Module):
    """A gated linear unit on phi(x, y): w · (a(phi) * sigmoid(b(phi))), [B, D] to [B].

    Args:
        hidden: width of the gated layer.
    """

    def __init__(self, width: int, *, hidden: PositiveInt = 64) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * hidden)
        self.output = nn.Linear(hidden, 1, bias=False)

    def forward(self, phi: Tensor) -> Tensor:
        score: Tensor = self.output(nn.functional.glu(self.gate(phi)))
        return score.squeeze(-1)
