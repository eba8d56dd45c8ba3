"""Values of judgements, for every format: rating scales, ranks, labels and spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import Row, describe_value, finite_number, whole_number
from rlhf_lightning.feedback.unknown_fields import suggest_name


class Scale:
    """The scale of a row's ratings, from the row or from the settings.

    Args:
        option: the format, for messages.
        ends: [lowest, highest] of rows without a scale; None if every row must have one.
        field: optional field with a row's [lowest, highest].
        integers_only: reject ratings that aren't whole numbers.

    Raises:
        ConfigError: ends that aren't lowest, highest.
    """

    def __init__(self, option: str, ends: tuple[float, float] | None, field: str | None, integers_only: bool) -> None:
        if ends is not None and not ends[0] < ends[1]:
            raise ConfigError(f"feedback_format.{option}.scale must be [lowest, highest], not {list(ends)}")
        self.option, self.ends, self.field, self.integers_only = option, ends, field, integers_only

    def of(self, row: Row) -> tuple[float, float]:
        """Return the row's (lowest, highest)."""
        row_ends = row.get(self.field)
        if row_ends is None:
            if self.ends is None:
                or_field = f", or a field '{row.where}{self.field}' to each row" if self.field is not None else ""
                raise DataError(f"no scale: add `feedback_format.{self.option}.scale=[LOWEST,HIGHEST]`{or_field}")
            return self.ends
        name = f"{row.where}{self.field}"
        if not isinstance(row_ends, list) or len(row_ends) != 2:
            raise DataError(f"{name} must be a list [lowest, highest], not {describe_value(row_ends)}")
        low, high = (finite_number(end, f"{name}[{i}]") for i, end in enumerate(row_ends))
        if not low < high:
            raise DataError(f"{name} must be [lowest, highest], not [{low:g}, {high:g}]")
        return low, high

    def number(self, value: Any, name: str, ends: tuple[float, float]) -> float:
        """Parse a rating: a finite number between the ends."""
        number = finite_number(value, name)
        if not ends[0] <= number <= ends[1]:
            raise DataError(f"{name} is {number:g}, off the scale {ends[0]:g} to {ends[1]:g}")
        if self.integers_only and not number.is_integer():
            raise DataError(f"{name} is {number:g}, and feedback_format.{self.option}.integers_only=true asks for whole numbers")
        return number


def dense_ranks(order: Sequence[float | None]) -> tuple[int | None, ...]:
    """Convert numbers (lower is better) to ranks from 0 without gaps; equal is a tie, None is unranked.

    Raises:
        DataError: fewer than two are ranked.
    """
    ranked = [rank for rank in order if rank is not None]
    if len(ranked) < 2:
        raise DataError(f"only {len(ranked)} of {len(order)} responses has a place; a ranking needs at least two that have")
    dense_rank = {rank: i for i, rank in enumerate(sorted(set(ranked)))}
    return tuple(None if rank is None else dense_rank[rank] for rank in order)


LabelValue = StrictBool | StrictInt | StrictFloat | StrictStr
"""A JSON value used as a label; true is not 1, "1" is not 1, and 1.0 is 1."""

T = TypeVar("T")


class LabelMap(Generic[T]):
    """A mapping from label values to meanings.

    Args:
        option: the format, for messages.
        settings: the values and the meaning of each setting.

    Raises:
        ConfigError: a value in two settings.
    """

    def __init__(self, option: str, settings: Mapping[str, tuple[tuple[LabelValue, ...], T]]) -> None:
        self.option, self.settings = option, settings
        self._meaning: dict[tuple[bool, LabelValue], T] = {}
        for name, (labels, meaning) in settings.items():
            for label in labels:
                if (isinstance(label, bool), label) in self._meaning:
                    raise ConfigError(
                        f"feedback_format.{option}.{name} has {describe_value(label)}, which is there already: a value has one meaning"
                    )
                self._meaning[isinstance(label, bool), label] = meaning

    def __call__(self, value: Any, name: str) -> T:
        """Return the meaning of the field's value. Raises DataError for an unknown one."""
        if isinstance(value, bool | int | float | str) and (isinstance(value, bool), value) in self._meaning:
            return self._meaning[isinstance(value, bool), value]
        values = ", ".join(describe_value(label) for labels, _ in self.settings.values() for label in labels)
        settings = " or ".join(f"feedback_format.{self.option}.{setting}" for setting in self.settings)
        raise DataError(
            f"{name} must be one of: {values or 'nothing'}; not {describe_value(value)}. Give other values a meaning by {settings}"
        )


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
