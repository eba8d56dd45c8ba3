"""The better of two responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from rlhf_lightning.collect.questions import ItemView, Question, require_integer, require_keys
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register

RANKS = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "both_bad": (1, 1)}


@register("collect_question", "pairwise")
class PairwiseQuestion(Question):
    """Choose the better of two responses: A, B, a tie or both bad, and how much better it is.

    Args:
        ties, both_bad: offer these choices.
        strengths: how many degrees of "better" are asked (1: none); the record's margin.
        question: the text that the page asks.
    """

    page = "pairwise"
    scope = "item"
    responses = (2, 2)

    def __init__(
        self,
        *,
        ties: bool = True,
        both_bad: bool = True,
        strengths: Annotated[int, Field(ge=1, le=4)] = 1,
        question: str = "Which response is better?",
    ) -> None:
        self.choices = [name for name in RANKS if not (name == "tie" and not ties) and not (name == "both_bad" and not both_bad)]
        self.strengths, self.title = strengths, question

    def describe(self) -> dict[str, Any]:
        return {"choices": self.choices, "strengths": self.strengths}

    def parse(self, value: Any, view: ItemView, index: int) -> dict[str, Any]:
        choice = require_keys(value, ["choice"], ["strength"])["choice"]
        if choice not in self.choices:
            raise ValueError(f"choice must be one of {', '.join(self.choices)}")
        is_decided = choice in ("a", "b")
        strength = value.get("strength")
        if self.strengths > 1 and is_decided:
            return {"choice": choice, "strength": require_integer(strength, 1, self.strengths)}
        if strength is not None:
            raise ValueError("no strength was asked")
        return {"choice": choice}

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        strength = value.get("strength")
        margin = None if strength is None else float(strength)
        ranking = Ranking(ranks=RANKS[value["choice"]], margin=margin, all_bad=value["choice"] == "both_bad")
        return [view.record(ranking, 0, 1)]

    def in_display_order(self, value: Any, order: Sequence[int]) -> Any:
        swapped = {"a": "b", "b": "a"}.get(value["choice"], value["choice"])
        return value if list(order) == [0, 1] else value | {"choice": swapped}
