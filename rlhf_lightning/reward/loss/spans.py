"""Marked spans: a logistic likelihood of the values of their tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch


def span_means(values: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """[S] means of values [N] over the positions start:end of each span; spans may overlap."""
    sizes = end - start
    span = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    before = (sizes.cumsum(0) - sizes)[span]
    positions = start[span] + torch.arange(len(span), device=sizes.device) - before
    return values.new_zeros(len(sizes)).index_add(0, span, values[positions]) / sizes


@register("reward_loss", "spans")
class LogisticSpans(nn.Module):
    """Marked spans, and those removed and inserted by edits: good tokens above 0, bad ones below.

    The loss is -log sigmoid(sign(value) * the mean of the span's token values), with weight |value|. It needs a head with token values
    (reward_head=token). The spans of a judgement share its weight. With bradley_terry an edit is a preference too.
    """

    kinds = ("spans", "edit")

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Values of N tokens to losses [S] (nats) and weights [S].

        Raises:
            ConfigError: there are spans, and the head has no token values.
        """
        spans = batch.spans
        if not len(spans):
            return scored.scores[:0], spans.weight
        if scored.tokens is None:
            raise ConfigError("reward_loss=spans learns values of tokens, and this head gives none: choose reward_head=token")
        lengths = batch.tokens.lengths
        first = (lengths.cumsum(0) - lengths)[spans.item]
        means = span_means(scored.tokens, first + spans.start, first + spans.end)
        return -logsigmoid(spans.value.sign() * means), spans.weight * spans.value.abs()
