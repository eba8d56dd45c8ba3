"""A marked stretch of a response: by its ends, or by the text that stands there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, kind_of
from rlhf_lightning.feedback.unknown_fields import near

ENDS = ("start", "end")
Worth = Annotated[float, Field(ge=-1, le=1)]
"""How good a stretch is: -1 bad to 1 good."""
Unclear = Literal["refuse", "first", "drop"]
"""What is done with a stretch whose text stands in the response several times or nowhere: refuse both; take the first, and leave out
what stands nowhere; leave out both."""


class Stretch:
    """Reads stretches: by the fields `start` and `end`, in characters (code points) from 0, the end not included, or by their text.

    Args:
        option: the format, for messages.
        span: the field with the text of the stretch; null or empty there is a stretch that stands nowhere, as of something left out.
        unclear: see Unclear.

    Attributes:
        fields: every field that is read.
    """

    def __init__(self, option: str, span: str, unclear: Unclear) -> None:
        self.option, self.span, self.unclear = option, span, unclear
        self.fields = frozenset((span, *ENDS))

    def is_in(self, row: Row) -> bool:
        """Whether the row has any of the fields; null is as if absent."""
        return any(row.get(name) is not None for name in self.fields)

    def __call__(self, row: Row, text: str) -> tuple[int, int] | None:
        """(start, end) in the text; None where it is left out.

        Raises DataError for a row without any of the fields, for ends outside of the text or that don't hold the span's text, for one
        end without the other, and, with unclear=refuse, for a text that is in the response several times or nowhere.
        """
        if not any(row.has(name) for name in self.fields):
            raise DataError(f"field '{row.where}{self.span}' is missing, and so are '{ENDS[0]}' and '{ENDS[1]}'{near(self.span, row.data)}")
        span = row.get(self.span)
        if span is not None and not isinstance(span, str):
            raise DataError(f"{row.where}{self.span} must be text of the response, not {kind_of(span)}")
        if any(row.get(name) is not None for name in ENDS):
            start, end = (self._end(row, name) for name in ENDS)
            if not start < end <= len(text):
                raise DataError(f"{row.where}{ENDS[0]} {start} to {end} is no stretch of the response of {len(text)} characters")
            if span is not None and text[start:end] != span:
                raise DataError(f"{row.where}{self.span} is {kind_of(span)}, but at {start} to {end} stands {kind_of(text[start:end])}")
            return start, end
        return self._found(row, span, text)

    def _found(self, row: Row, span: str | None, text: str) -> tuple[int, int] | None:
        start = text.find(span) if span else -1
        if span and start >= 0 and (self.unclear == "first" or text.find(span, start + 1) < 0):
            return start, start + len(span)
        if self.unclear == "refuse":
            times = "several times" if start >= 0 else "nowhere"
            raise DataError(
                f"{row.where}{self.span} is {kind_of(span)}, which stands in the response {times}; give its {' and '.join(ENDS)}, "
                f"or choose feedback_format.{self.option}.unclear=first (leaves out what stands nowhere) or drop (leaves out both)"
            )
        return None

    def _end(self, row: Row, name: str) -> int:
        value: Any = row.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DataError(f"{row.where}{name} must be a whole number from 0, not {kind_of(value)}")
        return value
