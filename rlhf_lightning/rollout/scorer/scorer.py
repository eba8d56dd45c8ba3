"""What scores a response, and the check that every score passes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout


class Scorer(Protocol):
    """Scores [B] for a rollout, from its texts or its tokens; higher is better."""

    def __call__(self, rollout: Rollout, /) -> Tensor: ...


def checked_scores(scorer: Scorer, rollout: Rollout) -> Tensor:
    """The scorer's scores as finite float32 [B].

    Raises:
        UserError: another shape or a score that isn't finite; the message names the scorer and the response.
    """
    name = getattr(scorer, "__qualname__", None) or type(scorer).__qualname__
    scores = scorer(rollout)
    if not isinstance(scores, Tensor):
        raise UserError(f"scorer {name} must return a tensor of {len(rollout)} scores, not {type(scores).__name__}")
    if scores.shape != (len(rollout),):
        raise UserError(f"scorer {name} returned shape {list(scores.shape)} for {len(rollout)} responses; it must be [{len(rollout)}]")
    bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"scorer {name} returned {scores[bad[0]].item()} for the response {rollout.responses[bad[0]][:80]!r}")
    return scores.detach().float()
