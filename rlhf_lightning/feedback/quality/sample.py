"""A part of very much feedback that keeps together what was said about one prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf_lightning.feedback.judgements import judgement_kind, prompt_share
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.flow import Feedback, Ranking


@dataclass(frozen=True)
class Sample:
    """Some of the feedback, and how much there was in all.

    Attributes:
        index: which records, in their order. records: the records.
        judgements: how many there were in all, by data set and kind.
    """

    index: list[int]
    records: list[Feedback]
    judgements: dict[str, Counter[str]] = field(default_factory=dict)


def sampled(feedback: Sequence[Feedback], cap: int) -> Sample:
    """The feedback about as many prompts as the cap allows, by a number made of the prompt; everything where it fits.

    The same prompts are drawn in whatever order the feedback comes; of the last one a part may be left out. Where there is no prompt,
    the response that is alphabetically first stands for it. A ranking of K costs its K (K - 1) / 2 pairs, everything else 1.
    """
    judgements: dict[str, Counter[str]] = {}
    share, cost = np.empty(len(feedback)), np.empty(len(feedback))
    for index, record in enumerate(feedback):
        judgements.setdefault(data_set(record), Counter())[judgement_kind(record)] += 1
        share[index] = prompt_share(record.prompt_text or min(record.responses))
        ranked = len(record.responses) if isinstance(record.judgement, Ranking) else 2
        cost[index] = ranked * (ranked - 1) / 2
    if cost.sum() <= cap:
        return Sample(list(range(len(feedback))), list(feedback), judgements)
    order = np.argsort(share, kind="stable")
    chosen = np.sort(order[: int(np.searchsorted(np.cumsum(cost[order]), cap, side="right"))])
    return Sample(chosen.tolist(), [feedback[int(i)] for i in chosen], judgements)
