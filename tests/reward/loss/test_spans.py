"""Marked stretches: the mean of a stretch's tokens by a plain loop, what counts how much, and a head that knows no tokens."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import collate
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Edit, Feedback, SpanLabel, Spans
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.spans import LogisticSpans, span_means
from rlhf_lightning.reward.model import RewardModel


def test_means_of_stretches_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, generator=generator, dtype=torch.float64)
    start = torch.randint(0, 39, (25,), generator=generator)
    end = torch.minimum(start + torch.randint(1, 12, (25,), generator=generator), torch.tensor(40))
    expected = [values[a:b].mean().item() for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    assert span_means(values, start, end).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_the_logistic_one_of_the_sign_weighted_by_the_size(batch_with):
    spans = {
        "item": torch.tensor([1, 0, 1, 2]),
        "start": torch.tensor([1, 0, 0, 2]),
        "end": torch.tensor([3, 1, 4, 3]),
        "value": torch.tensor([1.0, -0.5, 0.25, 0.0]),
        "weight": torch.tensor([1.0, 2.0, 1.0, 1.0]),
    }
    rows = [[1.0, 2.0], [0.5, -1.0, 3.0, 0.1], [4.0, 5.0, 6.0]]
    batch = dataclasses.replace(batch_with(spans=spans), tokens=PackedTokens.of([[0] * len(row) for row in rows]))
    tokens = torch.tensor([value for row in rows for value in row], requires_grad=True)
    losses, weights = LogisticSpans()(ScoredBatch(scores=torch.zeros(3), tokens=tokens), batch)
    means = [sum(rows[i][a:b]) / (b - a) for i, a, b in ((1, 1, 3), (0, 0, 1), (1, 0, 4))]
    expected = [math.log(1 + math.exp(-sign * mean)) for sign, mean in zip((1, -1, 1), means, strict=True)]
    assert losses.tolist()[:3] == pytest.approx(expected, rel=1e-6)
    assert weights.tolist() == pytest.approx([1.0, 1.0, 0.25, 0.0])  # a neutral stretch says nothing
    (losses * weights).sum().backward()
    assert tokens.grad[6:].tolist() == [0.0, 0.0, 0.0]
    assert tokens.grad[0] > 0  # the bad stretch's token should fall, by gradient descent
    assert tokens.grad[1] == 0


def test_a_head_without_tokens_is_refused_where_there_are_stretches_only(batch_with):
    spans = {"item": torch.tensor([0]), "start": torch.tensor([0]), "end": torch.tensor([1]), "value": torch.tensor([1.0])}
    batch = dataclasses.replace(batch_with(spans=spans), tokens=PackedTokens.of([[0]]))
    with pytest.raises(ConfigError, match="choose reward_head=token"):
        LogisticSpans()(ScoredBatch(scores=torch.zeros(1)), batch)
    losses, weights = LogisticSpans()(ScoredBatch(scores=torch.zeros(1)), batch_with())
    assert losses.shape == weights.shape == (0,)


def test_marked_words_and_what_edits_changed_get_their_sign(minimised):
    """Values of words learned from whole records: "bad" is marked and edited away, "good" praised and put in; the rest stays."""
    model = RewardModel(torch.nn.Identity(), byte_level_bpe(["a bad good lamp"] * 9, 300))
    marks = (SpanLabel(start=2, end=5, value=-1.0), SpanLabel(start=6, end=10, value=0.5))
    records = [
        Feedback(prompt="p", responses=("a bad good lamp",), judgement=Spans(spans=marks)),
        Feedback(prompt="q", responses=("a bad lamp", "a good lamp"), judgement=Edit()),
    ]
    batch = collate(standardise(records), model, spans=True)
    table = torch.zeros(len(model.tokenizer), requires_grad=True)

    def loss() -> torch.Tensor:
        losses, weights = LogisticSpans()(ScoredBatch(scores=torch.zeros(len(batch.tokens)), tokens=table[batch.tokens.ids]), batch)
        return (losses * weights).sum() + 0.1 * (table**2).sum()

    minimised([table], loss)

    def value(text: str) -> float:
        return table.detach()[model.tokenizer(text)["input_ids"]].sum().item()

    assert len(batch.spans) == 4
    assert value(" bad") < -0.3
    assert value(" good") > 0.3
    assert value(" lamp") == pytest.approx(0.0, abs=1e-6)
