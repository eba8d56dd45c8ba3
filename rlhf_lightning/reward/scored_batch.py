"""What a reward model says about a batch of texts, as losses see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Scored(NamedTuple):
    """Scores of U texts, before they are normalised, and what some heads know besides.

    Attributes:
        scores: [U], float32; what the policy is trained on.
        members: [K, U] one score by each member of an ensemble, each trained by itself.
        aspects: [U, A] a score for each aspect, in the order of `Judgements.aspects`.
        tokens: [N] a value for each packed token of the batch; 0 outside the responses.
    """

    scores: Tensor
    members: Tensor | None = None
    aspects: Tensor | None = None
    tokens: Tensor | None = None

    def views(self) -> Iterator[Scored]:
        """What is trained: each member of an ensemble as if it were alone, or the one model that there is."""
        if self.members is None:
            yield self
        else:
            yield from (Scored(scores=member) for member in self.members)

    def of_aspect(self, item: Tensor, aspect: Tensor) -> Tensor:
        """[M] scores of texts `item` in `aspect`; those of the whole response where the head knows no aspects, or for aspect 0."""
        whole = self.scores[item]
        if self.aspects is None:
            return whole
        return self.aspects[item, aspect].where(aspect > 0, whole)
