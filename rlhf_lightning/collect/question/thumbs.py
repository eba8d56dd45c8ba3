"""Thumbs up or down for each response, and for each turn of a dialogue."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.collect.questions import ItemView, Question, require_keys
from rlhf_lightning.flow import Feedback, Thumbs
from rlhf_lightning.registry import register


@register("collect_question", "thumbs")
class ThumbsQuestion(Question):
    """Is this response good? One key up, one key down.

    Args:
        turns: also take thumbs for the assistant's earlier turns of a dialogue, which nobody has to give.
        question: the text that the page asks.
    """

    page = "thumbs"

    def __init__(self, *, turns: bool = False, question: str = "Is this response good?") -> None:
        self.turns, self.title = turns, question

    def describe(self) -> dict[str, Any]:
        return {"turns": self.turns}

    def parse(self, value: Any, view: ItemView, index: int) -> dict[str, Any]:
        require_keys(value, ["up"], ["turns"] if self.turns else [])
        turns = value.get("turns") or {}
        if not isinstance(value["up"], bool) or not isinstance(turns, dict) or not all(isinstance(up, bool) for up in turns.values()):
            raise ValueError("true for up or false for down was expected")
        allowed = {str(i) for i, turn in enumerate(view.prompt) if turn.role == "assistant"} if not isinstance(view.prompt, str) else set()
        if not turns.keys() <= allowed:
            raise ValueError(f"the assistant's turns are {', '.join(sorted(allowed)) or 'none'}")
        return {"up": value["up"]} | ({"turns": turns} if turns else {})

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        earlier = [view.turn(Thumbs(up=up), int(turn)) for turn, up in sorted(value.get("turns", {}).items(), key=lambda t: int(t[0]))]
        return [*earlier, view.record(Thumbs(up=value["up"]), index)]
