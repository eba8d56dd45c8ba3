"""The scale of ratings: the row's own before the settings', and nothing off it."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format._scale import Scale
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
