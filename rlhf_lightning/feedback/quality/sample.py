"""Sampling of large feedback by prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf_lightning.feedback.judgements import judgement_kind, prompt_share
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.flow import Feedback, Ranking


@dataclass(frozen=True)
class FeedbackSample:
    """A sample of feedback, and counts of all feedback.

    Attributes:
        index: of the records, in their order. records: the records.
        judgements: total counts by data set and kind.
    """

    index: list[int]
    records: list[Feedback]
    judgements: dict[str, Counter[str]] = field(default_factory=dict)


def sample_by_prompt(feedback: Sequence[Feedback], cap: int) -> FeedbackSample:
    """Sample feedback by a hash of its prompt up to the cap; all of it if it fits.

    The prompts don't depend on the order of the feedback; the last one may be partial. Without a prompt, the alphabetically first
    response is hashed. A ranking of K costs its K (K - 1) / 2 pairs, other judgements 1.
    """
    judgements: dict[str, Counter[str]] = {}
    share, cost = np.empty(len(feedback)), np.empty(len(feedback))
    for index, record in enumerate(feedback):
        judgements.setdefault(data_set(record), Counter())[judgement_kind(record)] += 1
        share[index] = prompt_share(record.prompt_text or min(record.responses))
        ranked = len(record.responses) if isinstance(record.judgement, Ranking) else 2
        cost[index] = ranked * (ranked - 1) / 2
    if cost.sum() <= cap:
        return FeedbackSample(list(range(len(feedback))), list(feedback), judgements)
    order = np.argsort(share, kind="stable")
    rows = np.sort(order[: int(np.searchsorted(np.cumsum(cost[order]), cap, side="right"))])
    return FeedbackSample(rows.tolist(), [feedback[int(i)] for i in rows], judgements)
