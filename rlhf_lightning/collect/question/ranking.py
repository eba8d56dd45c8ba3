"""An order of the responses, by dragging or by keys, with ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf_lightning.collect.questions import ItemView, Question, require_integer
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("collect_question", "ranking")
class RankingQuestion(Question):
    """Put two to eight responses in order, best first; equal ones share a rank.

    Args:
        ties: responses may share a rank.
        question: the text that the page asks.
    """

    page = "ranking"
    scope = "item"
    responses = (2, 8)

    def __init__(self, *, ties: bool = True, question: str = "Put the responses in order, the best first.") -> None:
        self.ties, self.title = ties, question

    def describe(self) -> dict[str, Any]:
        return {"ties": self.ties}

    def parse(self, value: Any, view: ItemView, index: int) -> list[int]:
        """Ranks by display position, from 1; gaps between them are closed."""
        count = len(view.responses)
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"a list of {count} ranks was expected")
        ranks = [require_integer(rank, 1, count) for rank in value]
        levels = sorted(set(ranks))
        if len(levels) < count and not self.ties:
            raise ValueError("two responses share a rank")
        return [levels.index(rank) + 1 for rank in ranks]

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        return [view.record(Ranking(ranks=tuple(value)), *range(len(value)))]

    def in_display_order(self, value: Any, order: Sequence[int]) -> Any:
        return [value[i] for i in order]
