"""The interface of a question, and the item that it is asked about."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from rlhf_lightning.flow import Feedback, Judgement, Prompt

SCRIPTS = Path(__file__).parent / "static" / "questions"


@dataclass(frozen=True)
class ItemView:
    """An item as one annotator saw it: the responses in display order.

    Attributes:
        prompt: a text or a chat. models: the author of each response, which the page never has.
        seconds: active seconds of the answer.
    """

    prompt: Prompt
    responses: Sequence[str]
    models: Sequence[str | None] | None = None
    annotator: str | None = None
    time: datetime | None = None
    seconds: float | None = None
    source: str | None = None
    origin: str | None = None

    def record(self, judgement: Judgement, *indices: int) -> Feedback:
        """A judgement of the responses at these display positions."""
        models = tuple(self.models[i] for i in indices) if self.models is not None else None
        return self._record(judgement, self.prompt, tuple(self.responses[i] for i in indices), models, indices)

    def edit(self, judgement: Judgement, index: int, text: str) -> Feedback:
        """An edit of a response into a text."""
        models = (self.models[index], None) if self.models is not None else None
        return self._record(judgement, self.prompt, (self.responses[index], text), models, None)

    def turn(self, judgement: Judgement, index: int) -> Feedback:
        """A judgement of an earlier assistant turn of the prompt, by its index."""
        assert not isinstance(self.prompt, str)
        return self._record(judgement, self.prompt[:index], (self.prompt[index].content,), None, None)

    def _record(
        self, judgement: Judgement, prompt: Prompt, responses: tuple[str, ...], models: tuple[str | None, ...] | None,
        positions: tuple[int, ...] | None,
    ) -> Feedback:  # fmt: skip
        return Feedback(
            prompt=prompt, responses=responses, judgement=judgement, models=models, positions=positions, annotator=self.annotator,
            time=self.time, seconds=self.seconds, source=self.source, origin=self.origin,
        )  # fmt: skip


class Question:
    """One kind of decision; a subclass is an option of the group collect_question.

    Its settings are the keyword-only parameters of __init__.

    Attributes:
        scope: "response", asked of each response by itself, or "item", asked once of all.
        responses: fewest and most responses of an item, for scope "item".
        required: an answer without it isn't complete.
        title, instruction: of the page.
        page: the built-in page module that draws the question and reads its keys.
    """

    scope: ClassVar[Literal["item", "response"]] = "response"
    responses: ClassVar[tuple[int, int]] = (1, 8)
    page: ClassVar[str]
    required: bool = True
    title: str = ""
    instruction: str = ""

    @property
    def script(self) -> Path:
        """The page's module: NAME.js beside the component's own file, else the built-in one of `page`."""
        files = (Path(inspect.getfile(ancestor)).with_suffix(".js") for ancestor in type(self).__mro__[:-1])
        return next(filter(Path.is_file, files), SCRIPTS / f"{self.page}.js")

    def describe(self) -> dict[str, Any]:
        """Settings that the page's module reads, as JSON."""
        return {}

    def parse(self, value: Any, view: ItemView, index: int) -> Any:
        """Check an answer and return it as stored.

        Args:
            index: display position of the response; 0 for scope "item".

        Raises:
            ValueError: with what was expected.
        """
        raise NotImplementedError

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        """The records of a parsed answer; none if nothing was said."""
        raise NotImplementedError

    def in_display_order(self, value: Any, order: Sequence[int]) -> Any:
        """Reorder a value of the item's responses for a display of response order[d] at position d."""
        return value


def require_keys(value: Any, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the value if it is an object with these keys. Raises ValueError."""
    if not isinstance(value, dict) or not set(required) <= value.keys() <= {*required, *optional}:
        raise ValueError(f"an object with {', '.join(required)} was expected")
    return value


def require_text(value: Any, most: int) -> str:
    """Return the value if it is text of at most this many characters. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("text was expected")
    if len(value) > most:
        raise ValueError(f"the text has {len(value):,} characters, more than {most:,}")
    return value


def require_integer(value: Any, low: int, high: int) -> int:
    """Return the value if it is a whole number from low to high. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"a whole number from {low} to {high} was expected")
    return value
