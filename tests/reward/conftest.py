"""Batches of judgements for the reward room's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from rlhf_lightning.feedback.batch import JudgementBatch, collate, standardised
from rlhf_lightning.flow import Feedback, Ranking


def no_tokens(texts: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.long)


@pytest.fixture
def batch_of() -> Callable[[Sequence[tuple[str, list[str], list[int], float]]], JudgementBatch]:
    """A batch from (prompt, responses, ranks, margin)."""

    def make(rankings: Sequence[tuple[str, list[str], list[int], float]]) -> JudgementBatch:
        records = [
            Feedback(prompt=prompt, responses=tuple(responses), judgement=Ranking(ranks=tuple(ranks), margin=margin))
            for prompt, responses, ranks, margin in rankings
        ]
        return collate(standardised(records), no_tokens)

    return make
