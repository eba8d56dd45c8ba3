"""A rating of each response: stars, or a slider without a default."""

from __future__ import annotations

import math
from typing import Any, Literal

from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import register

MAX_STARS = 10


@register("collect_question", "rating")
class RatingQuestion(Question):
    """Stars for a short scale, a slider without a start value for a long one.

    Args:
        low, high, step: the scale, ends included.
        display: "stars", one key per level, at most ten levels; "slider", moved by arrow keys or typed digits.
        aspect: what is rated ("helpfulness"); None for the response as a whole.
        question: the text that the page asks; a default by the aspect if empty.
        labels: words at the two ends of the scale.
    """

    page = "rating"

    def __init__(
        self,
        *,
        low: float = 1.0,
        high: float = 5.0,
        step: float = 1.0,
        display: Literal["stars", "slider"] = "stars",
        aspect: str | None = None,
        question: str = "",
        labels: tuple[str, str] = ("poor", "excellent"),
    ) -> None:
        if not low < high or not step > 0 or not math.isclose((high - low) / step, round((high - low) / step)):
            raise ConfigError(f"collect_question.rating: low={low:g} to high={high:g} by step={step:g} is no scale")
        self.low, self.high, self.step, self.display, self.aspect, self.labels = low, high, step, display, aspect, list(labels)
        self.levels = round((high - low) / step) + 1
        if display == "stars" and self.levels > MAX_STARS:
            raise ConfigError(f"collect_question.rating: {self.levels} levels are too many for stars: write display=slider")
        self.title = question or (f"How good is this response's {aspect}?" if aspect else "How good is this response?")

    def describe(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "step": self.step, "display": self.display, "labels": self.labels}

    def parse(self, value: Any, view: ItemView, index: int) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError("a number was expected")
        level = (value - self.low) / self.step
        if not -1e-9 <= level <= self.levels - 1 + 1e-9 or abs(level - round(level)) > 1e-6:
            raise ValueError(f"a number from {self.low:g} to {self.high:g} in steps of {self.step:g} was expected")
        return self.low + round(level) * self.step

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        return [view.record(Rating(value=value, scale=(self.low, self.high), aspect=self.aspect), index)]
