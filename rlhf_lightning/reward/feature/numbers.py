"""Numbers, and right or wrong arithmetic."""

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
MAX_SUM_LENGTH = 60
"""Maximum characters of a checked sum."""


@register("reward_feature", "numbers")
class Numbers(FeatureFamily):
    """Numbers: digits, number count, and right and wrong sums in the response ("3 x 4 = 12").

    The last number is the answer in worked problems: whether it is whole, and occurs earlier in the response or in the prompt. A sum is
    right within 1 % or half a unit of the last written digit.
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
        values = numbers(response)
        checks = [is_right for is_right in _sums(response) if is_right is not None]
        right, wrong = sum(checks), len(checks) - sum(checks)
        last = values[-1] if values else None
        return [
            share(sum(map(str.isdigit, response)), len(response)),
            math.log1p(len(values)),
            math.log1p(right),
            share(wrong, len(checks)),
            math.log1p(wrong),
            float(last is not None and _value(last).is_integer()),
            float(last is not None and last in values[:-1]),
            float(last is not None and last in numbers(prompt)),
            math.log1p(min(_value(last), 1e15)) if last is not None else 0.0,
        ]


def _value(number: str) -> float:
    try:
        return float(number) if len(number) < 30 else 1e30
    except ValueError:  # two full stops, as in a date
        return 0.5


def _sums(text: str) -> Iterator[bool | None]:
    """For each "=" in the text, True if both sides are equal; None if they can't be computed."""
    for sign in re.finditer("=", text):
        expression = _LEFT.search(text[max(0, sign.start() - MAX_SUM_LENGTH) : sign.start()])
        result = _RIGHT.match(text[sign.end() : sign.end() + MAX_SUM_LENGTH])
        yield _is_right(_APART.split(expression.group())[-1].strip(" \tx*/"), result.group(1)) if expression and result else None


def _is_right(expression: str, result: str) -> bool | None:
    expression = re.sub(r"[$,\s]", "", expression).translate(str.maketrans("×x·÷", "***/"))
    if len(expression) > MAX_SUM_LENGTH - 5 or not re.search(r"[\d)%][-+*/]", expression):
        return None
    value = _evaluate(re.sub(r"(\d+\.?\d*|\.\d+)%", r"(\1/100)", expression))
    if value is None:
        return None
    stated = float(result.replace(",", ""))
    decimals = len(result.partition(".")[2])
    return abs(value - stated) <= max(0.5 * 10.0**-decimals, 0.01 * abs(stated)) + 1e-9


def _evaluate(expression: str) -> float | None:
    """The value of an expression of numbers, + - * / and brackets; None if it isn't one or divides by 0."""
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
