"""A reward model's raw output for a batch of texts, the input of losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class ScoredBatch(NamedTuple):
    """Raw scores of U texts, with the extra outputs of some heads.

    Attributes:
        scores: [U], float32; the policy's reward.
        members: [K, U] scores of the members of an ensemble, trained separately.
        aspects: [U, A] a score for each aspect, in the order of `Judgements.aspects`.
        tokens: [N] a value for each packed token of the batch; 0 outside the responses.
    """

    scores: Tensor
    members: Tensor | None = None
    aspects: Tensor | None = None
    tokens: Tensor | None = None

    def views(self) -> Iterator[ScoredBatch]:
        """The trained outputs: each member of an ensemble by itself, or the single model."""
        if self.members is None:
            yield self
        else:
            yield from (ScoredBatch(scores=member) for member in self.members)

    def of_aspect(self, item: Tensor, aspect: Tensor) -> Tensor:
        """[M] scores of texts `item` in `aspect`; the total for aspect 0 or a head without aspects."""
        total = self.scores[item]
        if self.aspects is None:
            return total
        return self.aspects[item, aspect].where(aspect > 0, total)
