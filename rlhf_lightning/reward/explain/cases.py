"""Which texts of a data set are explained, and for which features their scores are held against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.feedback.judgements import Text, judgement_kind
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback, Prompt, Ranking


@dataclass(frozen=True)
class Case:
    """A text, or two of which people preferred the first.

    Attributes:
        kind: of the judgement. origin: where it was read.
    """

    origin: str
    kind: str
    prompt: Prompt
    responses: tuple[str, ...]

    @property
    def texts(self) -> list[Text]:
        return [(self.prompt, response) for response in self.responses]


def case_of(record: Feedback) -> Case:
    """The best and the worst of what was compared, one pair of a ranking; the only text, or the first, of anything else."""
    ordered = comparisons(record)
    ranks = record.judgement.ranks if isinstance(record.judgement, Ranking) else (1, 0)
    chosen: tuple[int, ...] = (0,)
    if ordered:
        chosen = max(ordered, key=lambda pair: (ranks[pair[1]] or 0) - (ranks[pair[0]] or 0))
    return Case(record.origin or "", judgement_kind(record), record.prompt, tuple(record.responses[i] for i in chosen))


def distinct_cases(feedback: Sequence[Feedback], most: int) -> list[Case]:
    """The first `most` cases of different texts."""
    found: dict[tuple[Prompt, tuple[str, ...]], Case] = {}
    for record in feedback:
        case = case_of(record)
        found.setdefault((case.prompt, case.responses), case)
        if len(found) == most:
            break
    return list(found.values())


def sample(feedback: Sequence[Feedback], most: int, seed: int) -> list[Feedback]:
    """At most so many records, drawn without regard to their order and given in it."""
    chosen = sorted(random.Random(seed).sample(range(len(feedback)), min(most, len(feedback))))
    return [feedback[index] for index in chosen]


def distinct_texts(feedback: Sequence[Feedback], most: int) -> list[Text]:
    """The first `most` different prompts with responses."""
    found: dict[Text, None] = {}
    for record in feedback:
        found.update(((record.prompt, response), None) for response in record.responses)
    return list(found)[:most]
