"""Parallel coordinates as inline SVG: an axis for each setting, a line for each job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from rlhf_lightning.report.plots import COLOURS, element, segment, tick_labels, ticks, widen_range

HEIGHT, TOP, BOTTOM, STEP, SIDE = 300.0, 40.0, 270.0, 150.0, 70.0
"""Pixels of the drawing: STEP between two axes, SIDE outside the first and the last."""
LABEL = 22
"""Maximum characters of a label between two axes."""
FEW = 8
"""Up to this many values have a label each; more have ticks."""


@dataclass(frozen=True)
class Axis:
    """An axis: its name and each line's value; numbers are placed by value, others by order."""

    name: str
    values: Sequence[str]

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers; None unless all are."""
        try:
            numbers = [float(value) for value in self.values]
        except ValueError:
            return None
        return numbers if all(abs(number) < 1e30 for number in numbers) else None

    @cached_property
    def is_logarithmic(self) -> bool:
        """True for positive numbers over more than a factor of 20, like learning rates."""
        numbers = self.numbers
        return numbers is not None and min(numbers) > 0 and max(numbers) > 20 * min(numbers)

    def marks(self) -> list[tuple[str, float]]:
        """Labels and their positions, from 0 at the bottom to 1 at the top."""
        numbers, distinct = self.numbers, list(dict.fromkeys(self.values))
        if numbers is None or len(distinct) <= FEW:
            return [(label, self.position(label)) for label in distinct]
        low, high = min(numbers), max(numbers)
        if self.is_logarithmic:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            values = [factor * 10.0**power for power in decades for factor in ((1, 3) if len(decades) < 6 else (1,))]
            return [(f"{number:g}", self.position(f"{number:g}")) for number in values if low <= number <= high]
        positions = ticks(*widen_range(low, high, 0.04), 6)
        return [(label, self.position(str(position))) for label, position in zip(tick_labels(positions), positions, strict=True)]

    def position(self, value: str) -> float:
        """The position of a value on this axis, from 0 to 1."""
        numbers = self.numbers
        if numbers is None:
            distinct = list(dict.fromkeys(self.values))
            return 0.5 if len(distinct) == 1 else 1 - distinct.index(value) / (len(distinct) - 1)
        scale = math.log if self.is_logarithmic else float
        low, high = widen_range(scale(min(numbers)), scale(max(numbers)), 0.04)
        return (scale(float(value)) - low) / (high - low)


def parallel_coordinates(axes: Sequence[Axis], hover_texts: Sequence[str]) -> Markup:
    """Draw lines over the axes, coloured by fifths of the last axis.

    Args:
        hover_texts: of each line.

    Raises:
        ValueError: no axis, or axes of different lengths.
    """
    if not axes or any(len(axis.values) != len(hover_texts) for axis in axes):
        raise ValueError("every axis needs a value for every line")
    xs = [SIDE + STEP * index for index in range(len(axes))]
    parts: list[Markup] = []
    shades = [axes[-1].position(value) for value in axes[-1].values]
    for index in sorted(range(len(hover_texts)), key=lambda index: shades[index]):
        points = " ".join(f"{x:.1f},{_y(axis.position(axis.values[index])):.1f}" for x, axis in zip(xs, axes, strict=True))
        shade = min(int(shades[index] * COLOURS), COLOURS - 1)
        # A wide invisible line under the thin one takes the mouse.
        parts.append(
            element(
                "g",
                element("title", hover_texts[index]),
                element("polyline", points=points, class_="hit"),
                element("polyline", points=points, class_=f"job s{shade}"),
                class_="run",
            )
        )
    parts += [part for x, axis in zip(xs, axes, strict=True) for part in _axis(axis, x)]  # over the lines
    width = xs[-1] + SIDE
    names = ", ".join(axis.name for axis in axes)
    text = f"Parallel coordinates of {len(hover_texts)} jobs over {names}; the numbers are in the tables below."
    return element("svg", *parts, viewBox=f"0 0 {width:g} {HEIGHT:g}", role="img", aria_label=text, class_="plot parallel")


def _axis(axis: Axis, x: float) -> list[Markup]:
    marks = axis.marks()
    every = -(-len(marks) // 12) or 1
    parts = [segment(x, TOP, x, BOTTOM, "axis"), element("text", _shorten(axis.name), x=x, y=TOP - 20, class_="middle name")]
    for label, position in marks[::every]:
        parts.append(segment(x - 3, _y(position), x + 3, _y(position), "axis"))
        parts.append(element("text", _shorten(label), x=x + 6, y=_y(position) - 3, class_="mark-label"))
    return parts


def _y(position: float) -> float:
    return BOTTOM - position * (BOTTOM - TOP)


def _shorten(text: str) -> str:
    """Shorten a name at its beginning, as its end is more specific (ppo.learning_rate)."""
    return text if len(text) <= LABEL else f"…{text[1 - LABEL :]}"
