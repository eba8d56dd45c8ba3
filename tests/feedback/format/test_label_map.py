"""A value has one meaning, and JSON's types are kept apart."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format._label_map import LabelMap


def test_types_are_kept_apart() -> None:
    codes = LabelMap("thumbs", {"a": ((1, "x"), "number"), "b": ((True,), "bool"), "c": (("1",), "text")})
    assert [codes(value, "f") for value in (1, 1.0, True, "1", "x")] == ["number", "number", "bool", "text", "number"]


@pytest.mark.parametrize("value", [False, 0, "X", 1.5, None, [1], {"a": 1}])
def test_refused(value: Any) -> None:
    with pytest.raises(
        DataError, match=r"^f must be one of: a number \(1\), text \('x'\), true; not .* feedback_format.thumbs.a or feedback"
    ):
        LabelMap("thumbs", {"a": ((1, "x"), 1), "b": ((True,), 2)})(value, "f")


@pytest.mark.parametrize("again", [1, 1.0, "x"])
def test_one_value_one_meaning(again: Any) -> None:
    with pytest.raises(ConfigError, match=r"feedback_format.verdict.b has .* already"):
        LabelMap("verdict", {"a": ((1, "x"), 1), "b": ((again,), 2)})
