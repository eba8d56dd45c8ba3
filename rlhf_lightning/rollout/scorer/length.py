"""A price for responses that are too short or too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register

COUNTS: dict[str, Callable[[str], int]] = {"words": lambda text: len(text.split()), "characters": len}


@register("rollout_scorer", "length")
class LengthScorer:
    """0 for a response of a wanted length, down to -1 for one that is too long or too short.

    The score falls linearly over `slack` beyond the limits: the soft punishment of overlong responses of DAPO (Yu et al. 2025, eq. 13),
    with longest + slack as the largest length, and the same below.

    Args:
        shortest, longest: limits on the length, both included.
        slack: how far beyond a limit the score is -1.
        unit: "tokens" of the policy with the EOS, "words" between spaces, or "characters".

    Raises:
        ConfigError: `shortest` above `longest`.
    """

    def __init__(
        self,
        *,
        shortest: NonNegativeInt = 0,
        longest: NonNegativeInt = 100,
        slack: PositiveFloat = 20.0,
        unit: Literal["tokens", "words", "characters"] = "tokens",
    ) -> None:
        if shortest > longest:
            raise ConfigError(f"rollout_scorer.length.shortest={shortest} is above rollout_scorer.length.longest={longest}: lower it")
        self.shortest, self.longest, self.slack, self.unit = shortest, longest, slack, unit

    def __call__(self, rollout: Rollout) -> Tensor:
        """Scores [B]."""
        if self.unit == "tokens":
            lengths = rollout.response_mask.sum(1).float()
        else:
            lengths = torch.tensor([float(COUNTS[self.unit](text)) for text in rollout.responses])
        outside = (self.shortest - lengths).clamp(min=0) + (lengths - self.longest).clamp(min=0)
        return -(outside / self.slack).clamp(max=1)
