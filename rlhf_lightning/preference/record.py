"""The inputs of a preference loss: log-probabilities of responses, and judgements of them.

Shapes: J responses. Log-probabilities are natural and summed over a response's tokens, its end-of-text among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rlhf_lightning.errors import ConfigError


@dataclass(frozen=True)
class Answers:
    """J responses as policy and reference see them.

    Attributes:
        log_probs: [J] under the policy.
        tokens: [J] how many tokens that sums over.
        ref_log_probs: [J] under the start of the training; None for a loss that knows no reference.
    """

    log_probs: Tensor
    tokens: Tensor
    ref_log_probs: Tensor | None = None

    def log_ratio(self, per_token: bool = False) -> Tensor:
        """[J] log of the policy's over the reference's probability, in nats a response, or nats a token."""
        if self.ref_log_probs is None:
            raise ConfigError('a preference loss that compares with the reference says so: @register(..., needs=["reference"])')
        ratio = self.log_probs - self.ref_log_probs
        return ratio / self.tokens.clamp(min=1) if per_token else ratio

    def per_token(self) -> Tensor:
        """[J] mean log-probability of a response's tokens."""
        return self.log_probs / self.tokens.clamp(min=1)


@dataclass(frozen=True)
class Compared:
    """J pairs of responses to one prompt each, of which the first is the better one."""

    chosen: Answers
    rejected: Answers


@dataclass(frozen=True)
class Thumbed:
    """J responses with a thumb each: up [J] is 1 or 0.

    Attributes:
        divergence: [] the KL from the reference in nats a response, estimated on mismatched pairs, never below 0; without gradient.
    """

    answers: Answers
    up: Tensor
    divergence: Tensor


class PreferenceLoss(Protocol):
    """A component of the group `preference_loss`.

    It takes `Compared`, or `Thumbed` if it is registered with needs=["thumbs"]; with needs=["reference"] the answers have `ref_log_probs`.
    """

    def __call__(self, judged: Compared, /) -> Tensor:
        """[J] losses."""
        ...

    def rewards(self, answers: Answers) -> Tensor:
        """[J] rewards that the policy's probabilities imply; a pair's difference is its log-odds."""
        ...
