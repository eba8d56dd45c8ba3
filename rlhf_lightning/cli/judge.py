"""`rlhf-lightning judge PROGRAMS.jsonl`: run untrusted programs in sandboxes, print verdicts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.judging.judge import Judge
from rlhf_lightning.judging.program import Program, read_program
from rlhf_lightning.registry import components, make

UNSCORABLE = 3
"""Exit code where the machine was too busy for some verdicts."""


class Parser(argparse.ArgumentParser):
    """argparse with the program's own errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"judge: {message}; write `rlhf-lightning judge PROGRAMS.jsonl`, and --help for the options")


def judge(args: Sequence[str]) -> None:
    """Print a verdict for each line of a file, in order.

    Verdicts are {"passed": bool, "reason": str, "seconds": float}.
    Exits with 0, whatever the verdicts; with 3 if a program was "unscorable", because the machine was too busy.

    Raises:
        UserError: wrong arguments, a bad line, or no sandbox on this machine; nothing is printed then.
    """
    options = parse_judge(args)
    programs = read_programs(options.programs)
    sandbox = make("sandbox", options.sandbox, {"i_trust_this_code": True} if options.i_trust_this_code else {})
    limits = Limits(options.timeout, options.memory)
    judge = Judge(sandbox.isolation(), limits, options.workers, stops_early=True)
    is_scorable = True
    try:
        for verdict in judge.judge(programs):
            print(json.dumps({"passed": verdict.has_passed, "reason": verdict.reason, "seconds": round(verdict.seconds, 4)}), flush=True)
            is_scorable &= verdict.is_scorable
    finally:
        judge.close()
    if not is_scorable:
        sys.exit(UNSCORABLE)


def parse_judge(args: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `judge`. Raises ConfigError."""
    default = Limits()
    parser = Parser(prog="rlhf-lightning judge", description="Judge untrusted programs by their tests, in sandboxes.")
    parser.add_argument("programs", metavar="PROGRAMS.jsonl", help="a program with its tests on each line; - reads stdin")
    parser.add_argument("--sandbox", choices=[option.name for option in components("sandbox")], default="auto", help="auto by default")
    parser.add_argument("--timeout", type=float, default=default.seconds, help=f"seconds of a program ({default.seconds:g})")
    parser.add_argument("--memory", type=int, default=default.memory_mb, help=f"MiB of a program ({default.memory_mb})")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="programs at a time (the number of cores)")
    parser.add_argument("--i-trust-this-code", action="store_true", help="needed by --sandbox none")
    options = parser.parse_args(list(args))
    if options.timeout <= 0 or options.memory < 64 or options.workers < 1:
        parser.error("--timeout is above 0, --memory at least 64, --workers at least 1")
    if options.i_trust_this_code and options.sandbox != "none":
        parser.error("--i-trust-this-code belongs to --sandbox none")
    return options


def read_programs(path: str) -> list[Program]:
    """Read a file of programs. Raises DataError with file and line of the first bad one."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"judge: there is no file {path}") from error
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        lines = enumerate(text.split("\n"), 1)
        return [_read_line(line, f"{path}:{number}") for number, line in lines if line.strip()]
    finally:
        sys.set_int_max_str_digits(digits)


def _read_line(line: str, origin: str) -> Program:
    try:
        row: Any = json.loads(line)
        if not isinstance(row, dict):
            raise DataError(f"an object with completion, entry_point and tests is expected, not {line.strip()[:40]}")
        return read_program(row)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin}: not valid JSON: {error}") from error
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
