"""The rating scale, for every format with ratings."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import Row, describe_value, finite_number


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
