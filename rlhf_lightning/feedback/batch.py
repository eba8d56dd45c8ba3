"""One batch for all kinds of feedback: each distinct response once, and the judgements that point at them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rlhf_lightning.feedback.standardise import comparisons, ranking_levels, rating_z_scores
from rlhf_lightning.flow import Feedback, Ranking, Rating

Tokenise = Callable[[Sequence[tuple[str, str]]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Judged:
    """A feedback record with its rating on a common scale (z-scores per annotator); None for the other kinds."""

    feedback: Feedback
    z_score: float | None = None


@dataclass
class JudgementBatch:
    """U distinct responses and what was said about them, by index into them.

    Attributes:
        input_ids, mask: [U, L] prompt and response, right-padded.
        pairs: [P, 2] better, worse; from pairwise judgements, rankings of two and edits. pair_weight, pair_margin: [P].
        orders: [R, K] responses of a ranking of three or more, -1 where it is shorter. levels: [R, K] their places, 0 best, equal for a
            tie. order_weight: [R].
        rated: [M] responses with a rating. ratings: [M] z-scores. rating_weight: [M].
    """

    input_ids: Tensor
    mask: Tensor
    pairs: Tensor
    pair_weight: Tensor
    pair_margin: Tensor
    orders: Tensor
    levels: Tensor
    order_weight: Tensor
    rated: Tensor
    ratings: Tensor
    rating_weight: Tensor

    def __len__(self) -> int:
        """The number of judgements."""
        return len(self.pairs) + len(self.orders) + len(self.rated)

    def to(self, device: torch.device | str) -> JudgementBatch:
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def standardised(feedback: Sequence[Feedback]) -> list[Judged]:
    """Every record, ratings with their z-score within the annotator's own ratings."""
    ratings = [record for record in feedback if isinstance(record.judgement, Rating)]
    scores = iter(rating_z_scores(ratings))
    return [Judged(record, next(scores) if isinstance(record.judgement, Rating) else None) for record in feedback]


def split_by_prompt(judged: Sequence[Judged], held_out: float) -> tuple[list[Judged], list[Judged]]:
    """Training and held-out records with no prompt in common; a prompt's side depends on its text alone."""
    training: list[Judged] = []
    validation: list[Judged] = []
    for record in judged:
        (validation if prompt_share(record.feedback.prompt) < held_out else training).append(record)
    return training, validation


def prompt_share(prompt: str) -> float:
    """A stable number in [0, 1) from the prompt's text, blind to Unicode form, case and white space."""
    plain = " ".join(unicodedata.normalize("NFC", prompt).casefold().split())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big") / 2**64


def collate(judged: Sequence[Judged], tokenise: Tokenise) -> JudgementBatch:
    """The records as one batch. A judgement without information (an approved text, a ranking all tied) adds nothing."""
    place: dict[tuple[str, str], int] = {}
    pairs: list[tuple[int, int, float, float]] = []
    orders: list[tuple[list[int], list[int], float]] = []
    rated: list[tuple[int, float, float]] = []
    for record in judged:
        feedback = record.feedback
        index = [place.setdefault((feedback.prompt, response), len(place)) for response in feedback.responses]
        if record.z_score is not None:
            rated.append((index[0], record.z_score, feedback.weight))
        found = comparisons(feedback)
        for better, worse in found if len(index) == 2 else ():
            pairs.append((index[better], index[worse], feedback.weight, getattr(feedback.judgement, "margin", None) or 0.0))
        if isinstance(feedback.judgement, Ranking) and len(index) > 2 and found:
            orders.append((index, _levels(feedback.judgement), feedback.weight))
    ids, mask = tokenise(list(place))
    longest = max((len(index) for index, _, _ in orders), default=0)
    return JudgementBatch(
        input_ids=ids,
        mask=mask,
        pairs=torch.tensor([p[:2] for p in pairs], dtype=torch.long).reshape(-1, 2),
        pair_weight=torch.tensor([p[2] for p in pairs]),
        pair_margin=torch.tensor([p[3] for p in pairs]),
        orders=_padded([index for index, _, _ in orders], longest),
        levels=_padded([levels for _, levels, _ in orders], longest),
        order_weight=torch.tensor([weight for _, _, weight in orders]),
        rated=torch.tensor([r[0] for r in rated], dtype=torch.long),
        ratings=torch.tensor([r[1] for r in rated]),
        rating_weight=torch.tensor([r[2] for r in rated]),
    )


def judgement_kind(feedback: Feedback) -> str:
    """ "rating", "edit", "pair" (an order of two) or "ranking" (of three or more)."""
    if isinstance(feedback.judgement, Ranking):
        return "pair" if len(feedback.responses) == 2 else "ranking"
    return feedback.judgement.kind


def _levels(ranking: Ranking) -> list[int]:
    place = {index: level for level, group in enumerate(ranking_levels(ranking)) for index in group}
    return [place[index] for index in range(len(ranking.ranks))]


def _padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    return torch.tensor([[*row, *[-1] * (length - len(row))] for row in rows], dtype=torch.long).reshape(len(rows), length)
