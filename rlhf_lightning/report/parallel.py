"""Parallel coordinates as inline SVG: an axis for each setting, a line for each job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from rlhf_lightning.report.plots import COLOURS, element, segment, tick_labels, ticks, widened

HEIGHT, TOP, BOTTOM, STEP, SIDE = 300.0, 40.0, 270.0, 150.0, 70.0
"""Pixels of the drawing; STEP from one axis to the next, SIDE beside the first and the last."""
LABEL = 22
"""Characters of a label that fit between two axes."""
FEW = 8
"""Values of which each has its own label; of more, round numbers of their range have."""


@dataclass(frozen=True)
class Axis:
    """One axis: its name, and each line's value. Numbers stand where they lie, other values one below the other in their order."""

    name: str
    values: Sequence[str]

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers; None where one is none."""
        try:
            found = [float(value) for value in self.values]
        except ValueError:
            return None
        return found if all(abs(number) < 1e30 for number in found) else None

    @cached_property
    def is_logarithmic(self) -> bool:
        """Positive numbers over more than a factor of 20, as learning rates are swept."""
        numbers = self.numbers
        return numbers is not None and min(numbers) > 0 and max(numbers) > 20 * min(numbers)

    def marks(self) -> list[tuple[str, float]]:
        """Labels and their places, from 0 at the bottom to 1 at the top."""
        numbers, known = self.numbers, list(dict.fromkeys(self.values))
        if numbers is None or len(known) <= FEW:
            return [(label, self.place(label)) for label in known]
        low, high = min(numbers), max(numbers)
        if self.is_logarithmic:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            round_ones = [factor * 10.0**power for power in decades for factor in ((1, 3) if len(decades) < 6 else (1,))]
            return [(f"{number:g}", self.place(f"{number:g}")) for number in round_ones if low <= number <= high]
        places = ticks(*widened(low, high, 0.04), 6)
        return [(label, self.place(str(place))) for label, place in zip(tick_labels(places), places, strict=True)]

    def place(self, value: str) -> float:
        """Where a value of this axis lies, from 0 to 1."""
        numbers = self.numbers
        if numbers is None:
            known = list(dict.fromkeys(self.values))
            return 0.5 if len(known) == 1 else 1 - known.index(value) / (len(known) - 1)
        scale = math.log if self.is_logarithmic else float
        low, high = widened(scale(min(numbers)), scale(max(numbers)), 0.04)
        return (scale(float(value)) - low) / (high - low)


def parallel_coordinates(axes: Sequence[Axis], says: Sequence[str]) -> Markup:
    """The drawing. Lines are coloured by fifths of the last axis, from low to high, and say on hover what they are.

    Args:
        says: of each line.

    Raises:
        ValueError: no axis, or axes of different lengths.
    """
    if not axes or any(len(axis.values) != len(says) for axis in axes):
        raise ValueError("every axis needs a value for every line")
    xs = [SIDE + STEP * index for index in range(len(axes))]
    parts: list[Markup] = []
    shades = [axes[-1].place(value) for value in axes[-1].values]
    for index in sorted(range(len(says)), key=lambda index: shades[index]):
        points = " ".join(f"{x:.1f},{_y(axis.place(axis.values[index])):.1f}" for x, axis in zip(xs, axes, strict=True))
        shade = min(int(shades[index] * COLOURS), COLOURS - 1)
        # A wide invisible line under the thin one: that can be hit with a mouse.
        parts.append(
            element(
                "g",
                element("title", says[index]),
                element("polyline", points=points, class_="hit"),
                element("polyline", points=points, class_=f"job s{shade}"),
                class_="run",
            )
        )
    parts += [part for x, axis in zip(xs, axes, strict=True) for part in _axis(axis, x)]  # above the lines, which would hide the labels
    width = xs[-1] + SIDE
    told = f"Parallel coordinates of {len(says)} jobs over {', '.join(axis.name for axis in axes)}; the numbers are in the tables below."
    return element("svg", *parts, viewBox=f"0 0 {width:g} {HEIGHT:g}", role="img", aria_label=told, class_="plot parallel")


def _axis(axis: Axis, x: float) -> list[Markup]:
    marks = axis.marks()
    every = -(-len(marks) // 12) or 1
    parts = [segment(x, TOP, x, BOTTOM, "axis"), element("text", _short(axis.name), x=x, y=TOP - 20, class_="middle name")]
    for label, place in marks[::every]:
        parts.append(segment(x - 3, _y(place), x + 3, _y(place), "axis"))
        parts.append(element("text", _short(label), x=x + 6, y=_y(place) - 3, class_="said"))
    return parts


def _y(place: float) -> float:
    return BOTTOM - place * (BOTTOM - TOP)


def _short(text: str) -> str:
    """The end says more than the beginning: learning_rate, not ppo."""
    return text if len(text) <= LABEL else f"…{text[1 - LABEL :]}"
