"""Numbers, and sums that hold or don't."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import numbers, share
from rlhf_lightning.reward.regression.family import FeatureFamily

_LEFT = re.compile(r"(?:[\d$%() \t+*/×÷x·-]|[.,](?=\d))+$")
_APART = re.compile(r"(?<=[\d)%])[ \t]+(?=[\d($.])")
_RIGHT = re.compile(r"\s*\$?\s*(-?[\d,]*\.?\d+)")
_FACTOR = re.compile(r"\s*(\d+\.?\d*|\.\d+|[-+*/()])")
LONGEST = 60
"""Characters of a sum that is checked; a longer one is passed over."""


@register("reward_feature", "numbers")
class Numbers(FeatureFamily):
    """Numbers: digits, how many numbers, and the sums written out in the response ("3 x 4 = 12") that hold and that don't.

    The last number is the answer in worked problems: whether it is whole, below 0, and found before in the response or in the prompt.
    A sum holds within 1 % or half a unit of the last place that is written.
    """

    names = (
        "digits",
        "log numbers",
        "log right sums",
        "wrong sums",
        "log wrong sums",
        "the last number is whole",
        "the last number was there before",
        "the last number is the prompt's",
        "log of the last number",
    )

    def __call__(self, prompt: str, response: str) -> list[float]:
        found = numbers(response)
        checks = [holds for holds in _sums(response) if holds is not None]
        right, wrong = sum(checks), len(checks) - sum(checks)
        last = found[-1] if found else None
        return [
            share(sum(map(str.isdigit, response)), len(response)),
            math.log1p(len(found)),
            math.log1p(right),
            share(wrong, len(checks)),
            math.log1p(wrong),
            float(last is not None and _value(last).is_integer()),
            float(last is not None and last in found[:-1]),
            float(last is not None and last in numbers(prompt)),
            math.log1p(min(_value(last), 1e15)) if last is not None else 0.0,
        ]


def _value(number: str) -> float:
    try:
        return float(number) if len(number) < 30 else 1e30
    except ValueError:  # two full stops, as in a date
        return 0.5


def _sums(text: str) -> Iterator[bool | None]:
    """For each "=" in the text whether what stands before it is what stands behind it; None where that can't be computed."""
    for sign in re.finditer("=", text):
        left = _LEFT.search(text[max(0, sign.start() - LONGEST) : sign.start()])
        right = _RIGHT.match(text[sign.end() : sign.end() + LONGEST])
        yield _holds(_APART.split(left.group())[-1].strip(" \tx*/"), right.group(1)) if left and right else None


def _holds(left: str, right: str) -> bool | None:
    left = re.sub(r"[$,\s]", "", left).translate(str.maketrans("×x·÷", "***/"))
    if len(left) > LONGEST - 5 or not re.search(r"[\d)%][-+*/]", left):
        return None
    value = _computed(re.sub(r"(\d+\.?\d*|\.\d+)%", r"(\1/100)", left))
    if value is None:
        return None
    stated = float(right.replace(",", ""))
    places = len(right.partition(".")[2])
    return abs(value - stated) <= max(0.5 * 10.0**-places, 0.01 * abs(stated)) + 1e-9


def _computed(expression: str) -> float | None:
    """The value of numbers, + - * / and brackets; None for what is no such expression, and for a division by 0."""
    tokens = _FACTOR.findall(expression)
    if "".join(tokens) != expression:
        return None
    try:
        value, rest = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if not rest and math.isfinite(value) else None


def _sum(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _product(tokens)
    while rest and rest[0] in "+-":
        term, after = _product(rest[1:])
        value, rest = (value + term if rest[0] == "+" else value - term), after
    return value, rest


def _product(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _factor(tokens)
    while rest and rest[0] in "*/":
        factor, after = _factor(rest[1:])
        value, rest = (value * factor if rest[0] == "*" else value / factor), after
    return value, rest


def _factor(tokens: list[str]) -> tuple[float, list[str]]:
    if tokens[0] == "-":
        value, rest = _factor(tokens[1:])
        return -value, rest
    if tokens[0] == "(":
        value, rest = _sum(tokens[1:])
        if rest[0] != ")":
            raise ValueError("bracket")
        return value, rest[1:]
    return float(tokens[0]), tokens[1:]
