"""The judge: runs untrusted programs in sandboxes, compares plain data, and decides outside of them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rlhf_lightning.isolation.channel import Channel, ProgramError, Unscorable
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.isolation.self_test import check_isolation
from rlhf_lightning.isolation.zygote import Exit, Isolation, Zygote
from rlhf_lightning.judging.plain_data import is_equal, is_plain
from rlhf_lightning.judging.program import Program, Verdict

NO_ARGUMENTS = ["dict"]
LIMITS = Limits()


class Judge:
    """Judges programs by their tests, several at a time.

    Each program runs in its own process of a sandbox, which gets code and arguments and gives values. Tests with assertions run in a
    second sandbox and call the program from there. What passes is run again in new processes, calls in another order, and must pass again.

    Args:
        isolation: of the sandboxes.
        limits: of each process.
        workers: programs at a time.
        stops_early: end a program at the first test that fails.

    Raises:
        IsolationError: the isolation doesn't pass its self-test.
    """

    def __init__(self, isolation: Isolation, limits: Limits = LIMITS, workers: int = 1, stops_early: bool = False) -> None:
        self.isolation, self.limits, self.workers, self.stops_early = isolation, limits, workers, stops_early
        if isolation.filter:
            check_isolation(isolation)
        self._idle: dict[str, list[Zygote]] = {"candidate": [], "test": []}
        self._lock = threading.Lock()

    def judge(self, programs: Sequence[Program]) -> Iterator[Verdict]:
        """Yield the verdicts in order."""
        for role in ("candidate", *(["test"] if any(program.tests for program in programs) else [])):
            while len(self._idle[role]) < min(self.workers, len(programs)):
                self._idle[role].append(Zygote(self.isolation))
        with ThreadPoolExecutor(self.workers) as threads:
            yield from threads.map(self._judge, programs)

    def close(self) -> None:
        """End the sandboxes; they start again on demand."""
        with self._lock:
            for zygotes in self._idle.values():
                while zygotes:
                    zygotes.pop().close()

    def _judge(self, program: Program) -> Verdict:
        """Run a program, and again if something passed: each test must pass both times."""
        start = time.monotonic()
        try:
            passed, reason = self._run(program, list(range(len(program.calls))))
            if any(passed):
                order = random.SystemRandom().sample(range(len(program.calls)), len(program.calls))
                again, second_reason = self._run(program, order)
                both = [first and second for first, second in zip(passed, again, strict=True)]
                if both != passed:
                    reason = f"not the same when it is run again: {second_reason}"
                passed = both
        except Unscorable as error:
            return Verdict([False] * (len(program.calls) + len(program.tests)), f"unscorable: {error}", time.monotonic() - start, False)
        return Verdict(passed, reason, time.monotonic() - start)

    def _run(self, program: Program, order: Sequence[int]) -> tuple[list[bool], str]:
        """Run the tests once: which of them pass, and why the first one doesn't. Raises Unscorable."""
        passed = [False] * (len(program.calls) + len(program.tests))
        reasons: list[str] = []
        end = Exit()
        try:
            with self._child("candidate", end) as candidate:
                _load(candidate, program)
                self._run_calls(program, candidate, order, passed, reasons)
                if program.tests and not (reasons and self.stops_early):
                    self._run_tests(program, candidate, passed, reasons)
        except ProgramError as error:
            reasons.append(_explain(error, end, self.limits))
        except (RecursionError, MemoryError, ValueError) as error:  # of hostile data, whose size is limited
            passed, reasons = [False] * len(passed), [f"its data can't be read: {type(error).__name__}"]
        return passed, reasons[0] if reasons else "passed"

    def _run_calls(self, program: Program, candidate: Channel, order: Sequence[int], passed: list[bool], reasons: list[str]) -> None:
        for i in order:
            reply = _call(candidate, program.entry_point, program.calls[i].arguments, NO_ARGUMENTS)
            passed[i] = reply[0] == "value" and is_equal(program.calls[i].expected, reply[1])
            if not passed[i]:
                reason = "wrong value" if reply[0] == "value" else f"{reply[1]}: {reply[2]}"
                reasons.append(f"call {i}: {reason}")
                if self.stops_early:
                    return

    def _run_tests(self, program: Program, candidate: Channel, passed: list[bool], reasons: list[str]) -> None:
        """Run the assertions in the second sandbox, and hand their calls to the program."""
        end = Exit()
        try:
            with self._child("test", end) as test:
                tests = list(program.tests)
                test.send({"role": "test", "tests": tests, "prompt": program.prompt, "entry_point": program.entry_point})
                for i in range(len(tests)):
                    is_passed, reason = _serve_test(test, candidate)
                    passed[len(program.calls) + i] = is_passed
                    if not is_passed:
                        reasons.append(f"test {i}: {reason}" if len(tests) > 1 else reason)
                        if self.stops_early:
                            return
        except TestError as error:
            reasons.append(f"in the test: {_explain(error, end, self.limits)}")

    @contextmanager
    def _child(self, role: str, end: Exit) -> Iterator[Channel]:
        """A new process in an idle sandbox of a role, which never runs programs of the other role."""
        with self._lock:
            zygote = self._idle[role].pop() if self._idle[role] else None
        zygote = zygote or Zygote(self.isolation)
        try:
            with zygote.child(self.limits, end) as channel:
                yield channel
        finally:
            if zygote.is_alive:
                with self._lock:
                    self._idle[role].append(zygote)


class TestError(ProgramError):
    """A test process that broke a limit or ended."""

    __test__ = False


def _load(candidate: Channel, program: Program) -> None:
    """Run the program's definitions. Raises ProgramError with its exception."""
    request = {"role": "candidate", "source": program.source, "prompt": program.prompt, "entry_point": program.entry_point}
    candidate.send(request)
    message = candidate.receive()
    if message == ["loaded"]:
        return
    raise ProgramError(": ".join(_error(message)))


def _call(candidate: Channel, name: Any, args: Any, kwargs: Any) -> list[Any]:
    """Call a function: ["value", checked wire], or ["error", type, text]. Raises ProgramError."""
    candidate.send([name, args, kwargs])
    message = candidate.receive()
    if isinstance(message, list) and len(message) == 2 and message[0] == "value":
        if is_plain(message[1]):
            return message
        raise ProgramError("its value is not plain data")
    if isinstance(message, list) and len(message) == 2 and message[0] == "not_data" and isinstance(message[1], str):
        return ["error", "TypeError", f"its value is not plain data ({message[1][:200]})"]
    return ["error", *_error(message)]


def _error(message: Any) -> tuple[str, str]:
    """Type and text of an error message. Raises ProgramError for another message."""
    if isinstance(message, list) and len(message) == 3 and message[0] == "error" and all(isinstance(part, str) for part in message):
        return message[1][:100], message[2][:500]
    raise ProgramError("it wrote something else than messages")


def _serve_test(test: Channel, candidate: Channel) -> tuple[bool, str]:
    """Hand a test's calls to the program until its verdict; a test that never calls isn't passed.

    Raises:
        ProgramError: of the program. TestError: of the test.
    """
    calls = 0
    while True:
        try:
            message = test.receive()
        except ProgramError as error:
            raise TestError(str(error)) from error
        if (
            not isinstance(message, list)
            or len(message) != (4 if message[:1] == ["call"] else 3)
            or not isinstance(message[-1], str | list)
        ):
            raise TestError("it wrote something else than messages")
        if message[0] != "call":
            is_passed = message[0] == "verdict" and message[1] is True
            return is_passed and calls > 0, str(message[2])[:500] or "the test doesn't call the program"
        calls += 1
        reply = _call(candidate, *message[1:])
        if reply[0] == "error" and reply[1] in ("SystemExit", "KeyboardInterrupt", "GeneratorExit"):
            raise ProgramError(f"it raised {reply[1]}")
        try:
            test.send(reply)
        except ProgramError as error:
            raise TestError(str(error)) from error


def _explain(error: ProgramError, end: Exit, limits: Limits) -> str:
    """The reason of an error, with how the process ended."""
    text = str(error)
    if text != "the process ended":
        return text
    number = os.WTERMSIG(end.status) if os.WIFSIGNALED(end.status) else 0
    if number == signal.SIGKILL and end.cpu_seconds >= limits.seconds:
        return f"time limit: more than {limits.seconds:g} s of processor time"
    if number:
        return f"its process was ended by {signal.Signals(number).name}"
    return "its process ended itself"
