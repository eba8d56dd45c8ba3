"""Outside of a training a signal leaves the program in order, a second one at once; a process ends with the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_lightning.checkpoint import signals
from tests.fork_server import ForkedPopen

ROOT = Path(__file__).resolve().parents[2]
HEEDS = """
import os, signal, sys, time


def waits():  # in short sleeps: a signal that comes just before a long one is only handle_signals after it
    while True:
        time.sleep(0.05)


from rlhf_lightning.checkpoint.signals import handle_signals
with handle_signals():
    try:
        print(os.getpid(), flush=True)
        {body}
    finally:
        print("closed", flush=True)
        {then}
"""


def program(body: str, then: str = "pass", **env: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HEEDS.format(body=body, then=then)]
    given = {name: value for name, value in os.environ.items() if name not in (signals.PARENT_VARIABLE, "LOCAL_RANK")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return ForkedPopen(words, spares=1, env=given | env, start_new_session=True, **pipes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_closes_what_is_open_and_has_a_shell_s_exit_code(number, code):
    process = program("waits()")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (code, "closed\n", f"stopped by {number.name}\n")


def test_a_second_signal_ends_at_once_and_its_repetition_is_the_first():
    process = program("waits()", then="waits()")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "closed\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(signals.DEBOUNCE_SECONDS + 0.2)
    assert process.poll() is None, "the same signal, sent on"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_handlers_of_before_are_back():
    before = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
    with signals.handle_signals():
        assert all(isinstance(signal.getsignal(number), signals.SignalHandler) for number in signals.STOP_SIGNALS)
    assert {number: signal.getsignal(number) for number in signals.STOP_SIGNALS} == before


CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {code!r}], env=os.environ | {{'LOCAL_RANK': '1'}}); waits()"
)


def parent_of(body: str) -> tuple[subprocess.Popen[str], int]:
    """A process that has started another one as Lightning does, and that one's number."""
    process = program(CHILD.format(code=HEEDS.format(body=body, then="pass")))
    assert process.stdout is not None
    first = int(process.stdout.readline())
    child = int(process.stdout.readline())
    assert process.pid == first != child
    return process, child


def is_there(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_ends_with_the_one_that_started_it():
    process, child = parent_of("waits()")
    assert is_there(child)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while is_there(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_there(child)


def test_a_signal_to_one_that_was_started_ends_the_starter_with_its_code():
    process, child = parent_of("waits()")
    os.kill(child, signal.SIGTERM)
    assert process.wait(timeout=60) == 143
