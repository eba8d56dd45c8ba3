"""Rows with two responses side by side and one or several verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import responses_of
from rlhf_lightning.feedback.format._metadata import RowFormat, per_item
from rlhf_lightning.feedback.format._values import LabelMap, LabelValue
from rlhf_lightning.feedback.row import Row, finite_number
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "verdict")
@dataclass(kw_only=True)
class VerdictFormat(RowFormat):
    """Two responses shown side by side and a verdict: the first wins, the second, a tie, or both bad.

    A list of votes makes one Feedback per voter; if a row has both, the votes are read and the verdict is ignored. The
    order of the fields is the order in which the responses were shown (positions 0 and 1). Prompt and responses are texts or lists of
    messages, possibly with a shared prompt. The defaults read PandaLM's numbers and Chatbot Arena's words.

    Attributes:
        first, second: the fields with the responses, as they were shown.
        verdict, votes: the fields with one verdict, or with a list of them. null switches one off.
        first_wins, second_wins, tie, both_bad: the verdicts with this meaning. true is not 1, and 1 is not "1".
        strength: optional field, how much better the winner is: at least 0, and 0 or absent for a tie. If it is the verdict's
            field, a number such as -3 to 3, its absolute value counts. With votes, a list of the same length.
        annotator: optional field, who judged: one name, or with votes a list of the same length.
        models: optional fields, who wrote the first and the second response; or one field with a list of both.
    """

    first: str = "response_1"
    second: str = "response_2"
    verdict: str | None = "verdict"
    votes: str | None = "votes"
    first_wins: tuple[LabelValue, ...] = (1, "model_a")
    second_wins: tuple[LabelValue, ...] = (2, "model_b")
    tie: tuple[LabelValue, ...] = (0, "tie")
    both_bad: tuple[LabelValue, ...] = ("tie (bothbad)", "both_bad")
    strength: str | None = None
    models: str | tuple[str, str] = ("model_a", "model_b")

    def __post_init__(self) -> None:
        if self.verdict is None and self.votes is None:
            raise ConfigError(
                "feedback_format.verdict.verdict and feedback_format.verdict.votes are both null: one of them must be a field"
            )
        label_map = {
            "first_wins": (self.first_wins, (0, 1)),
            "second_wins": (self.second_wins, (1, 0)),
            "tie": (self.tie, (0, 0)),
            "both_bad": (self.both_bad, None),
        }
        self.label_map: LabelMap[tuple[int, int] | None] = LabelMap("verdict", label_map)
        looks_for = "verdict looks for " + " or ".join(f"'{name}'" for name in (self.verdict, self.votes) if name is not None)
        self.declare(looks_for, self.first, self.second, self.verdict, self.votes, self.strength, models=self.models)

    def __call__(self, row: Row) -> list[Feedback] | None:
        if self.votes is not None and row.get(self.votes) is not None:
            votes = row.items(self.votes)
            votes_read = [(vote, f"{row.where}{self.votes}[{i}]") for i, vote in enumerate(votes)]
            metadata_by_vote = self.metadata.per_annotator(row, len(votes), self.votes)
            strengths = self._strengths(row, len(votes))
        elif self.verdict is not None and row.get(self.verdict) is not None:
            votes_read, metadata_by_vote = [(row.get(self.verdict), row.where + self.verdict)], [self.metadata(row)]
            strengths = [row.get(self.strength)]
        else:
            return None
        prompt, responses = responses_of(row, self.prompt, (self.first, self.second))
        return [
            Feedback(prompt=prompt, responses=responses, judgement=self._ranking(value, name, strength), positions=(0, 1), **metadata)
            for (value, name), metadata, strength in zip(votes_read, metadata_by_vote, strengths, strict=True)
        ]

    def _strengths(self, row: Row, count: int) -> list[Any]:
        if self.strength is None or row.get(self.strength) is None:
            return [None] * count
        return per_item(row, self.strength, count, str(self.votes), lambda value, name: value)

    def _ranking(self, value: Any, name: str, strength: Any) -> Ranking:
        ranks = self.label_map(value, name)
        if ranks is None:
            return Ranking(ranks=(0, 0), all_bad=True)
        if strength is None:
            return Ranking(ranks=ranks)
        is_signed = self.strength in (self.verdict, self.votes)
        margin = finite_number(strength, str(self.strength))
        margin = abs(margin) if is_signed else margin
        if margin < 0 or (margin > 0 and ranks == (0, 0)):
            raise DataError(f"{self.strength} is {margin:g}; the strength of the winner can't be below 0, and a tie has none")
        return Ranking(ranks=ranks, margin=margin if ranks != (0, 0) else None)
