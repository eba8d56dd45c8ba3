"""The scale on which numbers were given, as every format with ratings reads it."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import Row, finite, kind_of


class Scale:
    """The scale of a row's ratings: the row's own, or that of the settings.

    Args:
        option: the format whose settings these are, for messages.
        ends: [lowest, highest], for rows that don't state their own; None where each must.
        field: optional field with a row's own [lowest, highest].
        whole: whether only whole numbers are ratings.

    Raises:
        ConfigError: ends that aren't lowest, highest.
    """

    def __init__(self, option: str, ends: tuple[float, float] | None, field: str | None, whole: bool) -> None:
        if ends is not None and not ends[0] < ends[1]:
            raise ConfigError(f"feedback_format.{option}.scale must be [lowest, highest], not {list(ends)}")
        self.option, self.ends, self.field, self.whole = option, ends, field, whole

    def of(self, row: Row) -> tuple[float, float]:
        """The row's (lowest, highest)."""
        own = row.get(self.field)
        if own is None:
            if self.ends is None:
                beside = f", or a field '{row.where}{self.field}' to each row" if self.field is not None else ""
                raise DataError(f"no scale: add `feedback_format.{self.option}.scale=[LOWEST,HIGHEST]`{beside}")
            return self.ends
        name = f"{row.where}{self.field}"
        if not isinstance(own, list) or len(own) != 2:
            raise DataError(f"{name} must be a list [lowest, highest], not {kind_of(own)}")
        low, high = (finite(end, f"{name}[{i}]") for i, end in enumerate(own))
        if not low < high:
            raise DataError(f"{name} must be [lowest, highest], not [{low:g}, {high:g}]")
        return low, high

    def number(self, value: Any, name: str, ends: tuple[float, float]) -> float:
        """A rating as a finite number between the ends."""
        number = finite(value, name)
        if not ends[0] <= number <= ends[1]:
            raise DataError(f"{name} is {number:g}, off the scale {ends[0]:g} to {ends[1]:g}")
        if self.whole and not number.is_integer():
            raise DataError(f"{name} is {number:g}, and feedback_format.{self.option}.whole=true asks for whole numbers")
        return number
