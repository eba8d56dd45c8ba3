"""Right answers, by a column of the task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import NonNegativeFloat

from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer._columns import column_of, require_column
from rlhf_lightning.rollout.scorer._pattern import Pattern

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
MARKED = re.compile(r"####\s*\$?(.*)")


@register("rollout_scorer", "match")
class MatchScorer:
    """1 for a response with the right answer, which a column of its row has, else 0.

    Args:
        column: name of the column with the right answer. A row without a value is left to the other scorers.
        compare: "exact" compares texts without the space around them; "numeric" numbers, up to the tolerance; "regex" searches the
            response for the column's regular expression.
        extract: what of a response is its answer: "text" all of it; "gsm8k" what follows "####", as in GSM8K's solutions; "last_number"
            the last number in it; or a regular expression, whose last match counts, its first group if it has one. Of the column the same
            is taken where it is found, else its whole text. Not with "regex".
        tolerance: largest difference of numbers, relative to the right one.
        case: whether upper and lower case differ.
    """

    def __init__(
        self,
        *,
        column: str = "answer",
        compare: Literal["exact", "numeric", "regex"] = "exact",
        extract: Pattern = "text",
        tolerance: NonNegativeFloat = 1e-6,
        case: bool = True,
    ) -> None:
        self.column, self.compare, self.extract, self.tolerance = column, compare, extract, tolerance
        self.flags = re.NOFLAG if case else re.IGNORECASE

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that the task has the column. Raises ConfigError."""
        require_column(names, self.column, "match")

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]; None for a row without an answer."""
        pairs = zip(rollout.responses, column_of(rollout, self.column, "match"), strict=True)
        return [None if answer is None else float(self.is_right(response, answer)) for response, answer in pairs]

    def is_right(self, response: str, answer: Any) -> bool:
        """Compare a response with the value of its column."""
        expected = str(answer)
        if self.compare == "regex":
            return re.search(expected, response, self.flags) is not None
        extracted = extract_answer(response, self.extract)
        if extracted is None:
            return False
        expected = extract_answer(expected, self.extract) or expected
        if self.compare == "numeric":
            number, right = to_number(extracted), to_number(expected)
            return number is not None and right is not None and abs(number - right) <= self.tolerance * max(1.0, abs(right))
        first, second = extracted.strip(), expected.strip()
        return first.casefold() == second.casefold() if self.flags else first == second


def extract_answer(text: str, extract: str) -> str | None:
    """The answer in a text (MatchScorer's `extract`); None if there is none."""
    if extract == "text":
        return text
    pattern = {"gsm8k": MARKED, "last_number": NUMBER}.get(extract) or re.compile(extract, re.DOTALL)
    matches = list(pattern.finditer(text))
    if not matches:
        return None
    last: re.Match[str] = matches[-1]
    return str(last[1] if pattern.groups else last[0]) if last[min(1, pattern.groups)] is not None else None


def to_number(text: str) -> float | None:
    """The number that a text begins with, as "$1,234.50" or "-3"; None without one."""
    match = NUMBER.match(text.strip().lstrip("$€£ "))
    return None if match is None else float(match[0].replace(",", ""))
