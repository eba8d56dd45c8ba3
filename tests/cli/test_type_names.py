"""A type and a default in the words of who types a command."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning import registry
from rlhf_lightning.cli.type_names import type_name, value_name
from rlhf_lightning.config import schema
from rlhf_lightning.config.schema import FilePath, ModelPath, in_order

registry.load_components()


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int, "int"),
        (str, "text"),
        (bool, "true or false"),
        (Any, "anything"),
        (PositiveFloat, "float > 0"),
        (NonNegativeFloat, "float >= 0"),
        (PositiveInt | None, "int > 0 or null"),
        (Annotated[float, Field(ge=0, lt=1)], "float >= 0 and < 1"),
        (Annotated[str, Field(min_length=1, max_length=3)], "text of length 1 to 3"),
        (Literal["k1", "k2"], "one of k1, k2"),
        (Literal["auto", 1] | None, "one of auto, 1 or null"),
        (tuple[str, ...], "list of text"),
        (list[int | str], "list of (int or text)"),
        (tuple[float, float] | None, "[float, float] or null"),
        (Annotated[tuple[float, float], schema.pydantic.AfterValidator(in_order)], "[float, float] in order"),
        (dict[str, PositiveInt], "{name: int > 0}"),
        (ModelPath, "folder or Hub name"),
        (FilePath | None, "path or null"),
        (tuple[ModelPath, ...], "list of (folder or Hub name)"),
    ],
)
def test_a_type(annotation, name):
    assert type_name(annotation) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "null"), (True, "true"), ("", "''"), ("a", "a"), (1e-5, "1e-05"), (0.5, "0.5"), (3, "3"), (0.123456789, "0.123456789"),
     ((1, "a", None), "[1, a, null]"), ({"a": 1.0}, "{a: 1}")],
)  # fmt: skip
def test_a_value(value, name):
    assert value_name(value) == name


def test_no_setting_shows_python_s_names():
    """Annotated, Union, class and the like say nothing to who types a command."""
    for component in registry.components():
        for setting in schema.settings_of(component.target):
            shown = type_name(setting.type)
            assert not any(word in shown for word in ("Annotated", "Union", "Optional", "class", "typing", "None")), shown
