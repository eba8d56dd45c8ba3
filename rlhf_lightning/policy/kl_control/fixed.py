from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("policy_kl_control", "fixed")
class FixedKL(nn.Module):
    """A constant KL coefficient.

    It is in the checkpoint in double precision, on no device: a buffer would be rounded to bfloat16 with the model in true half
    precision, where 0.05 * 1.001 is 0.05 again.

    Details: docs/ppo_details.md#fixed-kl-coefficient.

    Args:
        coef: the KL coefficient, in reward units per nat.
    """

    def __init__(self, *, coef: NonNegativeFloat = 0.05) -> None:
        super().__init__()
        self.coef = coef

    def value(self) -> float:
        """The present coefficient."""
        return self.coef

    def update(self, kl: float, responses: int) -> None:
        """No-op; same interface as AdaptiveKL."""

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.coef, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.coef = float(state)
