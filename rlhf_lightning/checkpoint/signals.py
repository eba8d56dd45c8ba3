"""Signals outside of a training, where nothing is half-done that a resumed run doesn't make again; and processes whose starter is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlhf_lightning.training.launch import this_launch

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SAME = 1.0
"""Seconds within which a second signal is the first one, sent on: a terminal's Ctrl-C reaches all processes, and torchrun repeats it."""
STARTER = "RLHF_LIGHTNING_STARTER"
"""The process whose command starts the others: Lightning makes theirs of it, with its environment."""
LOOK = 0.5
"""Seconds between two looks at whether the starter is there."""


class Ending:
    """At the first signal the program is left as by an error, so that all that was opened is closed; at a second one at once.

    Args:
        starter: the process of this command that started this one; None where this is the first of its node, or came from elsewhere.
    """

    def __init__(self, starter: int | None) -> None:
        self.starter = starter
        self._came: float | None = None

    def __call__(self, number: int, frame: Any = None) -> None:
        now = time.monotonic()
        if self._came is not None:
            if now - self._came > SAME:
                os._exit(128 + number)
            return
        self._came = now
        if self.starter is not None:
            # The starter has the exit code that counts, and Lightning kills it at once where another one's isn't 0.
            if os.getppid() == self.starter:
                os.kill(self.starter, number)
            raise SystemExit(0)
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        if number == signal.SIGUSR1:
            requeue()
        raise SystemExit(128 + number)


@contextmanager
def handle_signals() -> Iterator[None]:
    """End with 128 + the signal's number at SIGTERM, SIGINT or SIGUSR1, and with the process that started this one among several.

    A training has its own way with signals meanwhile, checkpoint.stop.
    """
    starter = _starter()
    if starter is not None or this_launch().by == "torchrun":
        _watch(os.getppid() if starter is None else starter)
    os.environ[STARTER] = str(os.getpid())
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = Ending(starter)
    before = {number: signal.signal(number, ending) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_pending(number: int) -> None:
    """Do now what the handler in force does at a signal that was only noted."""
    handler = signal.getsignal(number)
    if isinstance(handler, Ending):
        handler(number)
    raise SystemExit(128 + number)


def requeue() -> None:
    """Let SLURM queue this job again, where this is its first process."""
    launch = this_launch()
    if launch.by != "SLURM" or launch.rank() or "SLURM_JOB_ID" not in os.environ:
        return
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        code = subprocess.call(["scontrol", "requeue", job])
    except OSError as cause:
        code = cause.errno or 1
    if code:
        print(f"scontrol requeue {job} failed ({code}): queue the job again yourself", file=sys.stderr)


def _starter() -> int | None:
    launch = this_launch()
    return int(os.environ[STARTER]) if not launch.outside and launch.local and STARTER in os.environ else None


def _watch(starter: int) -> None:
    """End when the starter has: nobody waits for this process any more, and what it waits for may never come."""

    def look() -> None:
        while os.getppid() == starter:
            time.sleep(LOOK)
        os.write(2, f"process {os.getpid()} ends, for the one that started it is gone\n".encode())
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="starter-watch").start()
