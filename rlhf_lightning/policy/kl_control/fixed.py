from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("policy_kl_control", "fixed")
class FixedKL(nn.Module):
    """A KL coefficient that stays where it is.

    It is kept in double precision in the checkpoint and nowhere on a device: as a buffer it would be rounded to bfloat16 with the
    model in true half precision, where 0.05 * 1.001 is 0.05 again.

    Args:
        coef: reward units per nat.
    """

    def __init__(self, *, coef: NonNegativeFloat = 0.05) -> None:
        super().__init__()
        self.coef = coef

    def value(self) -> float:
        """The coefficient now."""
        return self.coef

    def update(self, kl: float, responses: int) -> None:
        """Nothing moves. The same door as AdaptiveKL's."""

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.coef, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.coef = float(state)
