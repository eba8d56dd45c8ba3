"""Programs scored by their tests, in a sandbox."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.flow import Prompt, Rollout, prompt_text
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.isolation.zygote import Isolation
from rlhf_lightning.judging.extraction import extract_program, split_test
from rlhf_lightning.judging.judge import Judge
from rlhf_lightning.judging.program import Program, Verdict, read_tests
from rlhf_lightning.registry import make, register
from rlhf_lightning.rollout.scorer._columns import row_columns

ENTRY_POINT, CALLS, TEST = "entry_point", ("calls", "expected"), "test"


class Sandbox(Protocol):
    """An option of the group `sandbox`."""

    def isolation(self) -> Isolation: ...


@register("rollout_scorer", "code")
class CodeScorer:
    """1 for a program that passes its tests, else 0; every other test is held out of the score.

    The program is the last fenced block of a response, behind the prompt's import lines; without a block the response continues the prompt.
    The columns of a row are `entry_point`, the function's name, and its tests: `calls` with `expected`, lists of arguments and of values,
    or `test`, a source that defines check(candidate), of which each assertion is a test (docs/howto/code.md). Of a problem's tests the
    first, third, ... are rewarded. The others are logged as objective/held_out_scores, and measured as "held_out_tests"; "pass@1" counts
    programs that pass all. A program that a busy machine leaves no time has no score.

    Args:
        reward: "all" gives 1 if all rewarded tests pass; "fraction" the fraction of them.
        hold_out: whether every other test is held out.
        timeout: seconds of a program.
        memory: MiB of a program.
        workers: programs at a time; null: one for each core.

    Raises:
        ConfigError: the task has no such columns.
        UserError: no sandbox works on this machine, or the tests of a row can't be read.
    """

    METRICS: ClassVar = ("held_out_tests", "pass@1")

    def __init__(
        self,
        *,
        reward: Literal["all", "fraction"] = "all",
        hold_out: bool = True,
        timeout: PositiveFloat = 6.0,
        memory: Annotated[int, Field(ge=64)] = 512,
        workers: PositiveInt | None = None,
    ) -> None:
        self.reward, self.hold_out = reward, hold_out
        self.limits, self.workers = Limits(timeout, memory), workers or os.cpu_count() or 1
        self.sandbox: Sandbox | None = None
        self._judge: Judge | None = None
        self._verdicts: dict[tuple[str, str], Verdict] = {}

    @property
    def note(self) -> str:
        """The isolation in use; it is tested here. Raises UserError where there is none."""
        isolation = self._open().isolation
        return (
            f"programs run {'confined by Landlock' if isolation.landlock else 'in namespaces' if isolation.prefix else 'WITHOUT a sandbox'}"
        )

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that the task has a function's name and tests. Raises ConfigError."""
        missing = [name for name in (ENTRY_POINT, *(() if TEST in names else CALLS)) if name not in names]
        if missing:
            near = did_you_mean(missing[0], names)
            raise ConfigError(
                f"rollout_scorer=code: the rows of the task have no column {missing[0]!r}{near}; it reads {ENTRY_POINT}, and {TEST} or "
                f"{' with '.join(CALLS)}; beside the prompt they have: {', '.join(names) or 'none'}"
            )

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B] by the rewarded tests; None for a row without tests, or a program that can't be judged."""
        return [None if verdict is None else self._score(self._rewarded_part(verdict)) for verdict in self._verdicts_of(rollout)]

    def held_out(self, rollout: Rollout) -> list[float | None]:
        """Scores [B] by the tests that the score doesn't count; None for a row with a single test."""
        parts = [None if verdict is None else replace(verdict, passed=verdict.passed[1::2]) for verdict in self._verdicts_of(rollout)]
        return [self._score(part) if part is not None and part.passed and self.hold_out else None for part in parts]

    def metrics(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Values [B] of METRICS; NaN for none."""
        verdicts = self._verdicts_of(rollout)
        passes = [math.nan if verdict is None or not verdict.is_scorable else float(verdict.has_passed) for verdict in verdicts]
        held_out = [math.nan if score is None else score for score in self.held_out(rollout)]
        return {"held_out_tests": torch.tensor(held_out), "pass@1": torch.tensor(passes)}

    def close(self) -> None:
        """End the sandboxes; they start again on demand."""
        if self._judge is not None:
            self._judge.close()

    def _rewarded_part(self, verdict: Verdict) -> Verdict:
        return replace(verdict, passed=verdict.passed[::2]) if self.hold_out else verdict

    def _score(self, verdict: Verdict) -> float | None:
        if not verdict.is_scorable:
            return None
        return float(verdict.has_passed) if self.reward == "all" else verdict.fraction

    def _open(self) -> Judge:
        if self._judge is None:
            sandbox = make("sandbox", "auto", {}) if self.sandbox is None else self.sandbox
            self._judge = Judge(sandbox.isolation(), self.limits, self.workers)
        return self._judge

    def _verdicts_of(self, rollout: Rollout) -> list[Verdict | None]:
        """The verdict of each response; equal programs are judged once, and not again for the same rollout."""
        programs = [_program(*row) for row in zip(rollout.prompts, rollout.responses, row_columns(rollout), strict=True)]
        distinct = {_key(program): program for program in programs if program is not None}
        new = {key: program for key, program in distinct.items() if key not in self._verdicts}
        verdicts = dict(zip(new, self._open().judge(list(new.values())), strict=True)) if new else {}
        self._verdicts = {key: verdicts[key] if key in verdicts else self._verdicts[key] for key in distinct}
        return [None if program is None else self._verdicts[_key(program)] for program in programs]


def _program(prompt: Prompt, response: str, columns: Mapping[str, Any]) -> Program | None:
    """The program of a response with its row's tests; None for a row without tests. Raises UserError."""
    entry_point = columns.get(ENTRY_POINT)
    if not isinstance(entry_point, str) or all(columns.get(name) is None for name in (*CALLS, TEST)):
        return None
    try:
        calls, tests = read_tests(columns)
    except DataError as error:
        raise UserError(f"rollout_scorer=code: a row of {entry_point}: {error}") from error
    text = prompt if isinstance(prompt, str) else ""
    source, continues = extract_program(text, response)
    helpers = text if continues else prompt_text(prompt)
    return Program(source, entry_point.strip(), helpers, calls, [part for test in tests for part in split_test(test)])


def _key(program: Program) -> tuple[str, str]:
    return program.source, repr((program.entry_point, program.calls, program.tests))
