"""Marked stretches: a logistic likelihood of the values of their tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.scored_batch import Scored


def stretch_means(values: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """[S] means of values [N] over the places start to end (exclusive) of each stretch; stretches may overlap."""
    sizes = end - start
    stretch = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    before = (sizes.cumsum(0) - sizes)[stretch]
    places = start[stretch] + torch.arange(len(stretch), device=sizes.device) - before
    return values.new_zeros(len(sizes)).index_add(0, stretch, values[places]) / sizes


@register("reward_loss", "spans")
class LogisticSpans(nn.Module):
    """Marked stretches, and what edits took out and put in: the tokens of a good one should be worth more than 0, of a bad one less.

    The loss is -log sigmoid(sign(value) * the mean of the stretch's tokens' values), and counts |value| times. Needs a head that values
    tokens (reward_head=token). The stretches of a judgement share its weight. Beside bradley_terry an edit is learned from as a
    preference too; this loss alone learns from its stretches.
    """

    kinds = ("spans", "edit")

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Values of N tokens to losses [S] (nats) and weights [S].

        Raises:
            ConfigError: there are stretches, and the head has no values of tokens.
        """
        spans = batch.spans
        if not len(spans):
            return scored.scores[:0], spans.weight
        if scored.tokens is None:
            raise ConfigError("reward_loss=spans learns values of tokens, and this head gives none: choose reward_head=token")
        lengths = batch.tokens.lengths
        first = (lengths.cumsum(0) - lengths)[spans.item]
        means = stretch_means(scored.tokens, first + spans.start, first + spans.end)
        return -logsigmoid(spans.value.sign() * means), spans.weight * spans.value.abs()
