"""Meanings of the verdicts and labels of data sets, such as true, 1, "model_a" or "tie"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import describe_value

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
