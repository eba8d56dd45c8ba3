"""One program that answers line by line: its pipes are read without ever waiting longer than was said."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rlhf_lightning.config.redaction import safe_message
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompt

LONGEST = 65536
"""Bytes of an answer: a score needs a few."""
PIECE = 65536
LAST_WORDS = 2000
"""Bytes of what it wrote to stderr that are kept for a message."""
SILENT = 3
"""Hangs running before any answer: then it never will answer."""
PATIENCE = 1.0
"""Seconds that a program has to end at the end of its input."""


class Worker:
    """A program that is begun when it is needed, killed when it hangs, and begun anew.

    Args:
        words: of the command.
        timeout: seconds for one answer.
    """

    def __init__(self, words: Sequence[str], timeout: float) -> None:
        self.words, self.timeout = list(words), timeout
        self._answered, self._hangs = False, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._told: set[str] = set()

    def score(self, prompt: Prompt, response: str) -> float | None:
        """The program's score of a response; None where it gives null, hangs or crashes.

        Raises:
            UserError: it ended before its first answer, never answers, or its line is no score.
        """
        try:
            line = self._answer(json.dumps({"prompt": _plain(prompt), "response": response}).encode() + b"\n")
            if line is None:
                self.end()
                return None
            self._answered = True
            return self._number(line, response)
        except UserError:
            self.end()
            raise

    def end(self, patience: float = 0.0) -> None:
        """Close its input, wait so many seconds for its end, and kill what is left of it and of all that it started in its session."""
        process: Any = self._process
        self._process = None
        if process is None:
            return
        process.stdin.close()
        until = time.monotonic() + patience
        while (left := until - time.monotonic()) > 0 and select.select([process.stdout], [], [], left)[0]:
            if not os.read(process.stdout.fileno(), PIECE):
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.stderr.close()
        process.wait()

    def _number(self, line: bytes, response: str) -> float | None:
        try:
            score = json.loads(line)
        except ValueError:
            score = line
        if score is None or isinstance(score, int | float):
            return None if score is None else float(score)
        raise UserError(
            f"{self} answered {line.decode(errors='replace')[:200]!r} to the response {response[:80]!r}: it must write one line a "
            f"response, a JSON number or null, and nothing else to stdout{self._last_words()}"
        )

    def _answer(self, question: bytes) -> bytes | None:
        """The line that follows the question; None where it hangs or ends."""
        process, until = self._running(), time.monotonic() + self.timeout
        if select.select([process.stdout], [], [], 0)[0] and (more := os.read(process.stdout.fileno(), PIECE)):
            raise UserError(f"{self} wrote {more.decode(errors='replace')[:200]!r} unasked: it must write one line a response, no more")
        line, to_write, reads = b"", question, [process.stdout, process.stderr]
        while (left := until - time.monotonic()) > 0:
            ready, writable, _ = select.select(reads, [process.stdin] if to_write else [], [], left)
            if writable:
                to_write = to_write[_written(process.stdin, to_write) :]
            for pipe in ready:
                piece = os.read(pipe.fileno(), PIECE)
                if not piece:
                    reads.remove(pipe)
                elif pipe is process.stderr:
                    self._said = (self._said + piece)[-LAST_WORDS:]
                else:
                    line += piece
            if b"\n" in line or len(line) > LONGEST:
                return line.rstrip(b"\r\n")
            if process.stdout not in reads:
                self._ended(process)
                return None
        self._hung()
        return None

    def _ended(self, process: Any) -> None:
        """It closed its output without an answer."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        said = f"{self} ended with code {code}"
        if not self._answered:
            raise UserError(f"{said} before its first answer{self._last_words()}")
        self._tell(f"{said} without an answer, and is begun anew: the response can't be scored{self._last_words()}", f"ended {code}")

    def _hung(self) -> None:
        said = f"{self} gave no answer within {self.timeout:g} s"
        self._hangs += 1
        if not self._answered and self._hangs >= SILENT:
            raise UserError(f"{said}, {SILENT} times running and never before: does it flush each line that it writes?{self._last_words()}")
        self._tell(f"{said}, and is killed and begun anew: the response can't be scored{self._last_words()}", "hung")

    def _tell(self, text: str, kind: str) -> None:
        """Once of each kind."""
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(safe_message(text), stacklevel=2)  # a logger of this name is switched off by Hydra

    def _running(self) -> Any:
        if self._process is None:
            pipe, here = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1"}
            # A session of its own: a Ctrl-C is the run's to handle, and killing the session kills what the program started.
            self._process = subprocess.Popen(self.words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=here)
            os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]
            self._said = b""
        return self._process

    def __str__(self) -> str:
        return f"rollout_scorer.command={' '.join(self.words)!r}"

    def _last_words(self) -> str:
        said = self._said.decode(errors="replace").strip()
        return f"; on stderr:\n{said}" if said else ""


def _written(pipe: Any, data: bytes) -> int:
    """How many bytes went into a pipe; all where nobody reads it any more, which its answers tell."""
    try:
        return os.write(pipe.fileno(), data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def _plain(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
