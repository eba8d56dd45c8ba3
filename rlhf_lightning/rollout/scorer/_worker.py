"""A program that answers line by line, with a timeout on every read."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompt

MAX_ANSWER = 65536
"""Bytes of an answer: a score needs a few."""
CHUNK = 65536
MAX_STDERR = 2000
"""Bytes of stderr in an error message."""
MAX_FIRST_HANGS = 3
"""Consecutive hangs before the first answer that end the run."""
PATIENCE = 1.0
"""Seconds for a program to end after the end of its input."""


class Worker:
    """A program that is started on demand, killed when it hangs, and restarted.

    Args:
        words: of the command.
        timeout: seconds for one answer.
    """

    def __init__(self, words: Sequence[str], timeout: float) -> None:
        self.words, self.timeout = list(words), timeout
        self._answered, self._hangs = False, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = b""
        self._warned: set[str] = set()

    def score(self, prompt: Prompt, response: str, columns: Mapping[str, Any]) -> float | None:
        """The program's score of a response; None if it answers null, hangs or crashes.

        Args:
            columns: other columns of the prompt's row.

        Raises:
            UserError: it ended before its first answer, never answers, or its line is no score.
        """
        try:
            question = {"prompt": _plain(prompt), "response": response} | ({"columns": dict(columns)} if columns else {})
            line = self._answer(json.dumps(question, default=str).encode() + b"\n")
            if line is None:
                self.end()
                return None
            self._answered = True
            return self._number(line, response)
        except UserError:
            self.end()
            raise

    def end(self, patience: float = 0.0) -> None:
        """Close its input, wait for its end, then kill its process group.

        Args:
            patience: seconds to wait.
        """
        process: Any = self._process
        self._process = None
        if process is None:
            return
        process.stdin.close()
        until = time.monotonic() + patience
        while (remaining := until - time.monotonic()) > 0 and select.select([process.stdout], [], [], remaining)[0]:
            if not os.read(process.stdout.fileno(), CHUNK):
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
            f"response, a JSON number or null, and nothing else to stdout{self._stderr_note()}"
        )

    def _answer(self, question: bytes) -> bytes | None:
        """The program's next line; None if it hangs or ends."""
        process, until = self._running(), time.monotonic() + self.timeout
        if select.select([process.stdout], [], [], 0)[0] and (more := os.read(process.stdout.fileno(), CHUNK)):
            raise UserError(
                f"{self} wrote {more.decode(errors='replace')[:200]!r} without a request: it must write one line a response, no more"
            )
        line, to_write, reads = b"", question, [process.stdout, process.stderr]
        while (remaining := until - time.monotonic()) > 0:
            ready, writable, _ = select.select(reads, [process.stdin] if to_write else [], [], remaining)
            if writable:
                to_write = to_write[_write(process.stdin, to_write) :]
            for pipe in ready:
                piece = os.read(pipe.fileno(), CHUNK)
                if not piece:
                    reads.remove(pipe)
                elif pipe is process.stderr:
                    self._stderr = (self._stderr + piece)[-MAX_STDERR:]
                else:
                    line += piece
            if b"\n" in line or len(line) > MAX_ANSWER:
                return line.rstrip(b"\r\n")
            if process.stdout not in reads:
                self._handle_exit(process)
                return None
        self._handle_hang()
        return None

    def _handle_exit(self, process: Any) -> None:
        """Handle the end of the program without an answer."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        event = f"{self} ended with code {code}"
        if not self._answered:
            raise UserError(f"{event} before its first answer{self._stderr_note()}")
        self._warn_once(f"{event} without an answer, and is restarted: the response can't be scored{self._stderr_note()}", f"ended {code}")

    def _handle_hang(self) -> None:
        event = f"{self} gave no answer within {self.timeout:g} s"
        self._hangs += 1
        if not self._answered and self._hangs >= MAX_FIRST_HANGS:
            raise UserError(
                f"{event}, {MAX_FIRST_HANGS} times in a row and never before: does it flush each line that it writes?{self._stderr_note()}"
            )
        self._warn_once(f"{event}, and is killed and restarted: the response can't be scored{self._stderr_note()}", "hung")

    def _warn_once(self, text: str, kind: str) -> None:
        """Warn once per kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(safe_message(text), stacklevel=2)  # a logger of this name is switched off by Hydra

    def _running(self) -> Any:
        if self._process is None:
            pipe, env = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1"}
            # A new session: the run handles Ctrl-C, and killing the session kills the program's children.
            self._process = subprocess.Popen(self.words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=env)
            os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]
            self._stderr = b""
        return self._process

    def __str__(self) -> str:
        return f"rollout_scorer.program.command={' '.join(self.words)!r}"

    def _stderr_note(self) -> str:
        text = self._stderr.decode(errors="replace").strip()
        return f"; on stderr:\n{text}" if text else ""


def _write(pipe: Any, data: bytes) -> int:
    """Write to a pipe; returns the number of bytes, all of them if the pipe is closed."""
    try:
        return os.write(pipe.fileno(), data)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def _plain(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
