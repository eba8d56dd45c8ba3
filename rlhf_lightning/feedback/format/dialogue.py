"""Rows with a dialogue whose turns were judged one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import chat_before_answer, messages
from rlhf_lightning.feedback.format._metadata import JudgementMetadata, per_item
from rlhf_lightning.feedback.format._values import Scale
from rlhf_lightning.feedback.row import Row, describe_value
from rlhf_lightning.flow import Feedback, Message, Prompt, Rating, Thumbs
from rlhf_lightning.registry import register


@register("feedback_format", "dialogue")
class DialogueFormat:
    """A dialogue with rated assistant turns: each is a response to the messages before it.

    Ratings are in the messages, or in a separate list with null for unrated messages. A dialogue without any rating gives
    nothing. Only the assistant's turns can be rated, and not the second of two in a row.

    Args:
        messages: the field with the list of {"role", "content"} messages.
        rating: in a message, its rating; null or absent in an unrated one. null switches it off.
        thumbs: in a message, thumbs up (true) or down (false); off by default.
        ratings: the field with a list of ratings, as long as the messages; preferred to those in the messages. null switches it off.
        scale: [lowest, highest] of rows without their own.
        scale_field: optional field with a row's [lowest, highest], preferred to `scale`.
        integers_only: reject ratings that aren't whole numbers.
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
        integers_only: bool = False,
        aspect: str | None = None,
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        if rating is None and thumbs is None and ratings is None:
            raise ConfigError("feedback_format.dialogue.rating, .thumbs and .ratings are all null: one of them must be a field")
        self.messages, self.rating, self.thumbs, self.ratings, self.aspect = messages, rating, thumbs, ratings, aspect
        self.scale, self.metadata = Scale("dialogue", scale, scale_field, integers_only), JudgementMetadata(annotator, [model])
        self.fields = self.metadata.fields | {name for name in (messages, ratings, scale_field) if name is not None}
        inner = " or ".join(f"'{name}'" for name in (rating, thumbs) if name is not None)
        self.looks_for = f"dialogue looks for '{messages}'" + f" with {inner}" * bool(inner) + f" or '{ratings}' beside" * bool(ratings)

    def __call__(self, row: Row) -> list[Feedback] | None:
        items = row.get(self.messages)
        if not isinstance(items, list):
            return None
        has_ratings = self.ratings is not None and row.get(self.ratings) is not None
        judgement_keys = {name for name in (self.rating, self.thumbs) if name is not None}
        if not has_ratings and not any(isinstance(item, dict) and not judgement_keys.isdisjoint(item) for item in items):
            return None
        turns = messages(items, row.where + self.messages, extra_keys=judgement_keys)
        metadata = self.metadata(row)
        return [
            Feedback(prompt=self._before(row, turns, i), responses=(turns[i].content,), judgement=judgement, **metadata)
            for i, judgement in self._judgements(row, items)
        ]

    def _judgements(self, row: Row, items: list[dict[str, Any]]) -> Iterator[tuple[int, Rating | Thumbs]]:
        """Yield (index, judgement) of the judged messages."""
        for i, (value, name) in enumerate(self._ratings(row, items)):
            if value is not None:
                scale = self.scale.of(row)
                yield i, Rating(value=self.scale.number(value, name, scale), scale=scale, aspect=self.aspect, turn=i)
        for i, item in enumerate(items):
            value = None if self.thumbs is None else item.get(self.thumbs)
            if value is not None:
                if not isinstance(value, bool):
                    raise DataError(f"{row.where}{self.messages}[{i}].{self.thumbs} must be true or false, not {describe_value(value)}")
                yield i, Thumbs(up=value)

    def _ratings(self, row: Row, items: list[dict[str, Any]]) -> list[tuple[Any, str]]:
        """Return (rating or None, field name) of each message."""
        if self.ratings is not None and row.get(self.ratings) is not None:
            return per_item(row, self.ratings, len(items), self.messages, lambda value, name: (value, name))
        if self.rating is None:
            return []
        return [(item.get(self.rating), f"{row.where}{self.messages}[{i}].{self.rating}") for i, item in enumerate(items)]

    def _before(self, row: Row, turns: tuple[Message, ...], turn: int) -> Prompt:
        where = f"{row.where}{self.messages}"
        if turns[turn].role != "assistant":
            raise DataError(f"{where}[{turn}] is rated, but it is the {turns[turn].role}'s; only the assistant's messages can be")
        # Without earlier messages the prompt is the empty text, not an empty chat.
        return chat_before_answer(turns[:turn], f"{where} before the rated [{turn}]") or ""
