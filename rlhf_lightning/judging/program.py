"""Programs to judge, their tests, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.judging.plain_data import to_wire


@dataclass(frozen=True)
class Call:
    """Arguments of a call and the expected value, as the sandbox reads data (plain_data.to_wire)."""

    arguments: Any
    expected: Any


@dataclass(frozen=True)
class Program:
    """A program's source with its tests.

    Attributes:
        source: all of its code.
        prompt: the code before the completion, whose imports and helpers tests may use; the function under test is never taken from it.
        entry_point: name of the function under test.
        calls: tests by value, which are compared outside of the sandboxes.
        tests: sources that define check(candidate), which asserts.
    """

    source: str
    entry_point: str
    prompt: str = ""
    calls: Sequence[Call] = ()
    tests: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """Results of the tests.

    Attributes:
        passed: of each test, first the calls; False for those that the program didn't reach.
        reason: why the first test that failed did, or why there is no verdict.
        seconds: from start to end.
        is_scorable: False where the machine was too busy for a verdict.
    """

    passed: Sequence[bool]
    reason: str
    seconds: float
    is_scorable: bool = True

    @property
    def has_passed(self) -> bool:
        """True if there are tests and all of them passed."""
        return self.is_scorable and bool(self.passed) and all(self.passed)

    @property
    def fraction(self) -> float:
        """The share of tests passed; NaN without a verdict."""
        return sum(self.passed) / len(self.passed) if self.is_scorable else math.nan


def read_program(row: Mapping[str, Any]) -> Program:
    """Read a program as HumanEval composes it: prompt + completion.

    Args:
        row: {"prompt", "completion", "entry_point"} with {"calls", "expected"} or {"test"}.

    Raises:
        DataError: a field is missing or has a wrong type.
    """
    for name in ("completion", "entry_point"):
        if not isinstance(row.get(name), str):
            raise DataError(f"{name!r} must be a text; the row has: {', '.join(map(str, row))}")
    prompt = row.get("prompt", "")
    if not isinstance(prompt, str):
        raise DataError("'prompt' must be a text")
    calls, tests = read_tests(row)
    return Program(prompt + row["completion"], row["entry_point"].strip(), prompt, calls, tests)


def read_tests(row: Mapping[str, Any]) -> tuple[list[Call], list[str]]:
    """Read the tests of a row: "calls" with "expected", or "test", a source. Raises DataError."""
    calls, expected, test = row.get("calls"), row.get("expected"), row.get("test")
    if test is not None and (not isinstance(test, str) or not test.strip()):
        raise DataError("'test' must be a source text that defines check(candidate)")
    if calls is None and expected is None:
        if test is None:
            raise DataError(f"no tests: 'calls' with 'expected', or 'test' is needed; the row has: {', '.join(map(str, row))}")
        return [], [test]
    if not isinstance(calls, list) or not isinstance(expected, list) or not calls or len(calls) != len(expected):
        raise DataError("'calls' and 'expected' must be lists of the same length, at least 1: the arguments and the value of each call")
    for i, call in enumerate(calls):
        if not isinstance(call, list):
            raise DataError(f"'calls' {i} must be a list of arguments, not {call!r:.80}")
    pairs = zip(calls, expected, strict=True)
    return [Call(to_wire(arguments), to_wire(value)) for arguments, value in pairs], [] if test is None else [test]
