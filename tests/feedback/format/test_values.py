"""The scale of ratings: the row's own before the settings', and nothing off it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format._values import LabelMap, Scale, dense_ranks
from rlhf_lightning.feedback.row import Row


def test_the_rows_own_comes_first() -> None:
    scale = Scale("rating", (1, 5), "scale", integers_only=False)
    assert scale.of(Row({"scale": [0, 10]}, "f:1")) == (0, 10)
    assert scale.of(Row({"scale": None}, "f:1")) == (1, 5)
    assert scale.number(2.5, "r", (1, 5)) == 2.5


@pytest.mark.parametrize("own", [[1], [5, 1], [2, 2], "1-5", [0, True], [0, "5"], {}, [0, float("inf")]])
def test_scales_refused(own: Any) -> None:
    with pytest.raises(DataError, match=r"in\.scale"):
        Scale("rating", None, "scale", integers_only=False).of(Row({"scale": own}, "f:1", where="in."))


def test_a_scale_must_be_stated() -> None:
    with pytest.raises(DataError, match=r"feedback_format.dialogue.scale=\[LOWEST,HIGHEST\]"):
        Scale("dialogue", None, "scale", integers_only=False).of(Row({}, "f:1"))
    with pytest.raises(ConfigError, match=r"feedback_format.dialogue.scale must be \[lowest, highest\], not \[5, 1\]"):
        Scale("dialogue", (5, 1), None, integers_only=False)


@pytest.mark.parametrize(
    ("value", "words"), [(0, "off the scale 1 to 5"), (5.5, "off"), (True, "finite"), ("3", "finite"), (2.5, "integers_only=true")]
)
def test_numbers_refused(value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Scale("rating", (1, 5), None, integers_only=True).number(value, "r", (1, 5))


orders = st.lists(st.none() | st.integers(-3, 3) | st.floats(-5, 5), min_size=2, max_size=6)


@given(orders.filter(lambda order: sum(place is not None for place in order) >= 2))
def test_the_order_of_every_two_is_kept_and_levels_have_no_gaps(order: list[float | None]) -> None:
    found = dense_ranks(order)
    assert [place is None for place in found] == [place is None for place in order]
    both = [(a, b) for a, b in zip(order, found, strict=True) if a is not None and b is not None]
    assert all((a < c) == (b < d) and (a == c) == (b == d) for a, b in both for c, d in both)
    assert sorted({place for place in found if place is not None}) == list(range(len({a for a, _ in both})))
    assert dense_ranks(found) == found


@pytest.mark.parametrize("order", [[], [1], [None, None], [None, 2.0, None]])
def test_fewer_than_two(order: list[float | None]) -> None:
    with pytest.raises(DataError, match="at least two"):
        dense_ranks(order)


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
