"""Rows with a whole dialogue whose turns were judged one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import before_answer, messages
from rlhf_lightning.feedback.format._metadata import About, per_item
from rlhf_lightning.feedback.format._scale import Scale
from rlhf_lightning.feedback.row import Row, kind_of
from rlhf_lightning.flow import Feedback, Message, Prompt, Rating, Thumbs
from rlhf_lightning.registry import register


@register("feedback_format", "dialogue")
class DialogueFormat:
    """A whole dialogue whose assistant turns were rated one by one: each rated turn is a response to the messages before it.

    Ratings stand in the messages, or in a list beside them with null for what wasn't rated. A dialogue of which no turn was rated, all
    of them null, gives nothing. What isn't the assistant's can't be rated, nor can its second message in a row.

    Args:
        messages: the field with the list of {"role", "content"} messages.
        rating: in a message, its rating; null there, or absent, for one that wasn't rated. null switches it off.
        thumbs: in a message, thumbs up (true) or down (false); off by default.
        ratings: the field with a list of ratings, as long as the messages; it comes before those in the messages. null switches it off.
        scale: [lowest, highest], for rows that don't state their own.
        scale_field: optional field with a row's own [lowest, highest], which comes before `scale`.
        whole: refuse ratings that aren't whole numbers.
        aspect: what was rated ("helpfulness"), where it wasn't the turn as a whole.
        annotator: optional field, who rated.
        model: optional field, who the assistant was.
    """

    def __init__(
        self,
        *,
        messages: str = "messages",
        rating: str | None = "rating",
        thumbs: str | None = None,
        ratings: str | None = "ratings",
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        scale_field: str | None = "scale",
        whole: bool = False,
        aspect: str | None = None,
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        if rating is None and thumbs is None and ratings is None:
            raise ConfigError("feedback_format.dialogue.rating, .thumbs and .ratings are all null: one of them must be a field")
        self.messages, self.rating, self.thumbs, self.ratings, self.aspect = messages, rating, thumbs, ratings, aspect
        self.scale, self.about = Scale("dialogue", scale, scale_field, whole), About(annotator, [model])
        self.fields = self.about.fields | {name for name in (messages, ratings, scale_field) if name is not None}
        inner = " or ".join(f"'{name}'" for name in (rating, thumbs) if name is not None)
        self.looks_for = f"dialogue looks for '{messages}'" + f" with {inner}" * bool(inner) + f" or '{ratings}' beside" * bool(ratings)

    def __call__(self, row: Row) -> list[Feedback] | None:
        items = row.get(self.messages)
        if not isinstance(items, list):
            return None
        beside = self.ratings is not None and row.get(self.ratings) is not None
        inside = {name for name in (self.rating, self.thumbs) if name is not None}
        if not beside and not any(isinstance(item, dict) and not inside.isdisjoint(item) for item in items):
            return None
        talk = messages(items, row.where + self.messages, beside=inside)
        about = self.about(row)
        return [
            Feedback(prompt=self._before(row, talk, i), responses=(talk[i].content,), judgement=judgement, **about)
            for i, judgement in self._judgements(row, items)
        ]

    def _judgements(self, row: Row, items: list[dict[str, Any]]) -> Iterator[tuple[int, Rating | Thumbs]]:
        """The places of the judged messages, and how they were judged."""
        for i, (value, name) in enumerate(self._ratings(row, items)):
            if value is not None:
                scale = self.scale.of(row)
                yield i, Rating(value=self.scale.number(value, name, scale), scale=scale, aspect=self.aspect, turn=i)
        for i, item in enumerate(items):
            value = None if self.thumbs is None else item.get(self.thumbs)
            if value is not None:
                if not isinstance(value, bool):
                    raise DataError(f"{row.where}{self.messages}[{i}].{self.thumbs} must be true or false, not {kind_of(value)}")
                yield i, Thumbs(up=value)

    def _ratings(self, row: Row, items: list[dict[str, Any]]) -> list[tuple[Any, str]]:
        """For each message its rating, null for none, and where that stands."""
        if self.ratings is not None and row.get(self.ratings) is not None:
            return per_item(row, self.ratings, len(items), self.messages, lambda value, name: (value, name))
        if self.rating is None:
            return []
        return [(item.get(self.rating), f"{row.where}{self.messages}[{i}].{self.rating}") for i, item in enumerate(items)]

    def _before(self, row: Row, talk: tuple[Message, ...], turn: int) -> Prompt:
        where = f"{row.where}{self.messages}"
        if talk[turn].role != "assistant":
            raise DataError(f"{where}[{turn}] is rated, but it is the {talk[turn].role}'s; only what the assistant says can be")
        # The empty text, not an empty chat, is what nothing stands before.
        return before_answer(talk[:turn], f"{where} before the rated [{turn}]") or ""
