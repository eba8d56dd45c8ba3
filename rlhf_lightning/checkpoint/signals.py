"""Signal handling between trainings, and a watch on the parent process."""

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

from rlhf_lightning.training.launch import detect_launch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DEBOUNCE_SECONDS = 1.0
"""A second signal within this time is the first one, forwarded: Ctrl-C reaches all processes of a terminal, and torchrun repeats it."""
PARENT_VARIABLE = "RLHF_LIGHTNING_PARENT"
"""Environment variable with the process that launches the others: Lightning passes its environment on to them."""
POLL_SECONDS = 0.5
"""Seconds between two checks that the parent is alive."""


class SignalHandler:
    """Unwinds the program at the first signal, so that files are closed; exits at once at a second one.

    Args:
        parent: the process of this command that launched this one; None in the first process of a node, or under another launcher.
    """

    def __init__(self, parent: int | None) -> None:
        self.parent = parent
        self._received: float | None = None

    def __call__(self, number: int, frame: Any = None) -> None:
        now = time.monotonic()
        if self._received is not None:
            if now - self._received > DEBOUNCE_SECONDS:
                os._exit(128 + number)
            return
        self._received = now
        if self.parent is not None:
            # The parent's exit code counts; Lightning kills it if a child exits non-zero.
            if os.getppid() == self.parent:
                os.kill(self.parent, number)
            raise SystemExit(0)
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
        if number == signal.SIGUSR1:
            requeue()
        raise SystemExit(128 + number)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Exit with 128 + the signal's number at SIGTERM, SIGINT or SIGUSR1; a child exits with its parent.

    A training handles signals by itself meanwhile (checkpoint.graceful_stop).
    """
    parent = _parent()
    if parent is not None or detect_launch().by == "torchrun":
        _watch(os.getppid() if parent is None else parent)
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = SignalHandler(parent)
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def raise_pending(number: int) -> None:
    """Run the present handler for a signal that was only recorded."""
    handler = signal.getsignal(number)
    if isinstance(handler, SignalHandler):
        handler(number)
    raise SystemExit(128 + number)


def requeue() -> None:
    """Let SLURM requeue this job, from its first process."""
    launch = detect_launch()
    if launch.by != "SLURM" or launch.rank() or "SLURM_JOB_ID" not in os.environ:
        return
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        code = subprocess.call(["scontrol", "requeue", job])
    except OSError as cause:
        code = cause.errno or 1
    if code:
        print(f"scontrol requeue {job} failed ({code}): requeue the job yourself", file=sys.stderr)


def _parent() -> int | None:
    launch = detect_launch()
    return int(os.environ[PARENT_VARIABLE]) if not launch.is_external and launch.local and PARENT_VARIABLE in os.environ else None


def _watch(parent: int) -> None:
    """Exit after the parent has: other ranks that this process waits for may never answer."""

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.write(2, f"process {os.getpid()} exits: its parent is gone\n".encode())
        os._exit(1)

    threading.Thread(target=poll, daemon=True, name="parent-watch").start()
