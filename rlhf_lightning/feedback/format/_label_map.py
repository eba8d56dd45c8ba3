"""Which values of a field mean what: the verdicts and labels of data sets, as true, 1, "model_a", "tie"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import kind_of

Code = StrictBool | StrictInt | StrictFloat | StrictStr
"""A JSON value that stands for something; true is not 1, "1" is not 1, and 1.0 is 1."""

T = TypeVar("T")


class Codes(Generic[T]):
    """A table from values to meanings.

    Args:
        option: the format, for messages.
        settings: for each setting its values and what they mean.

    Raises:
        ConfigError: a value that stands in two settings.
    """

    def __init__(self, option: str, settings: Mapping[str, tuple[tuple[Code, ...], T]]) -> None:
        self.option, self.settings = option, settings
        self._meaning: dict[tuple[bool, Code], T] = {}
        for name, (codes, meaning) in settings.items():
            for code in codes:
                if (isinstance(code, bool), code) in self._meaning:
                    raise ConfigError(
                        f"feedback_format.{option}.{name} has {kind_of(code)}, which is there already: a value has one meaning"
                    )
                self._meaning[isinstance(code, bool), code] = meaning

    def __call__(self, value: Any, name: str) -> T:
        """What the value of the field `name` means. Raises DataError for one that isn't in the table."""
        if isinstance(value, bool | int | float | str) and (isinstance(value, bool), value) in self._meaning:
            return self._meaning[isinstance(value, bool), value]
        known = ", ".join(kind_of(code) for codes, _ in self.settings.values() for code in codes)
        where = " or ".join(f"feedback_format.{self.option}.{setting}" for setting in self.settings)
        raise DataError(f"{name} must be one of: {known or 'nothing'}; not {kind_of(value)}. Give other values a meaning by {where}")
