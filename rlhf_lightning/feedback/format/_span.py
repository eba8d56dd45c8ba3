"""Spans of a response, given by their offsets or by their text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, describe_value, whole_number
from rlhf_lightning.feedback.unknown_fields import suggest_name

ENDS = ("start", "end")
SpanValue = Annotated[float, Field(ge=-1, le=1)]
"""Value of a span: -1 bad to 1 good."""
Unclear = Literal["refuse", "first", "drop"]
"""Handling of a span whose text is in the response several times or nowhere: reject both; take the first, and leave out absent ones;
leave out both."""


class SpanReader:
    """Reads spans by `start` and `end` (code points from 0, end excluded) or by their text.

    Args:
        option: the format, for messages.
        span: the field with the span's text; null or empty is a span that is nowhere in the response, such as an omission.
        unclear: see Unclear.

    Attributes:
        fields: every field that is read.
    """

    def __init__(self, option: str, span: str, unclear: Unclear) -> None:
        self.option, self.span, self.unclear = option, span, unclear
        self.fields = frozenset((span, *ENDS))

    def is_in(self, row: Row) -> bool:
        """Return True if the row has any of the fields; null counts as absent."""
        return any(row.get(name) is not None for name in self.fields)

    def __call__(self, row: Row, text: str) -> tuple[int, int] | None:
        """Return (start, end) in the text; None for a span to leave out.

        Raises DataError for a row without any of the fields, for offsets outside of the text or that don't match the span's text, for
        one offset without the other, and, with unclear=refuse, for a text that is in the response several times or nowhere.
        """
        if not any(row.has(name) for name in self.fields):
            raise DataError(
                f"field '{row.where}{self.span}' is missing, and so are '{ENDS[0]}' and '{ENDS[1]}'{suggest_name(self.span, row.data)}"
            )
        span = row.get(self.span)
        if span is not None and not isinstance(span, str):
            raise DataError(f"{row.where}{self.span} must be text of the response, not {describe_value(span)}")
        if any(row.get(name) is not None for name in ENDS):
            start, end = (whole_number(row.get(name), row.where + name, 0) for name in ENDS)
            if not start < end <= len(text):
                raise DataError(f"{row.where}{ENDS[0]} {start} to {end} is not a span of the response of {len(text)} characters")
            if span is not None and text[start:end] != span:
                raise DataError(
                    f"{row.where}{self.span} is {describe_value(span)}, but at {start} to {end} is {describe_value(text[start:end])}"
                )
            return start, end
        return self._find(row, span, text)

    def _find(self, row: Row, span: str | None, text: str) -> tuple[int, int] | None:
        start = text.find(span) if span else -1
        if span and start >= 0 and (self.unclear == "first" or text.find(span, start + 1) < 0):
            return start, start + len(span)
        if self.unclear == "refuse":
            count = "several times" if start >= 0 else "nowhere"
            raise DataError(
                f"{row.where}{self.span} is {describe_value(span)}, which is in the response {count}; give its {' and '.join(ENDS)}, "
                f"or choose feedback_format.{self.option}.unclear=first (leaves out what is nowhere) or drop (leaves out both)"
            )
        return None
