"""The texts of a data set to explain, and those for the regression on features."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.feedback.judgements import PromptResponse, judgement_kind
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback, Prompt, Ranking


@dataclass(frozen=True)
class Case:
    """A text, or two with the preferred one first.

    Attributes:
        kind: of the judgement. origin: file and line.
    """

    origin: str
    kind: str
    prompt: Prompt
    responses: tuple[str, ...]

    @property
    def texts(self) -> list[PromptResponse]:
        return [(self.prompt, response) for response in self.responses]


def to_case(record: Feedback) -> Case:
    """The best and the worst text of a comparison; the first text of any other judgement."""
    ordered = comparisons(record)
    ranks = record.judgement.ranks if isinstance(record.judgement, Ranking) else (1, 0)
    chosen: tuple[int, ...] = (0,)
    if ordered:
        chosen = max(ordered, key=lambda pair: (ranks[pair[1]] or 0) - (ranks[pair[0]] or 0))
    return Case(record.origin or "", judgement_kind(record), record.prompt, tuple(record.responses[i] for i in chosen))


def distinct_cases(feedback: Sequence[Feedback], limit: int) -> list[Case]:
    """The first `limit` cases of different texts."""
    cases: dict[tuple[Prompt, tuple[str, ...]], Case] = {}
    for record in feedback:
        case = to_case(record)
        cases.setdefault((case.prompt, case.responses), case)
        if len(cases) == limit:
            break
    return list(cases.values())


def sample_records(feedback: Sequence[Feedback], limit: int, seed: int) -> list[Feedback]:
    """A random sample of at most `limit` records, in their order."""
    chosen = sorted(random.Random(seed).sample(range(len(feedback)), min(limit, len(feedback))))
    return [feedback[index] for index in chosen]


def distinct_texts(feedback: Sequence[Feedback], limit: int) -> list[PromptResponse]:
    """The first `limit` different prompts with responses."""
    texts: dict[PromptResponse, None] = {}
    for record in feedback:
        texts.update(((record.prompt, response), None) for response in record.responses)
    return list(texts)[:limit]
