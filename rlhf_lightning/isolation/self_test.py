"""A sandbox's self-test: it tries what a hostile program would try, before any program runs."""

from __future__ import annotations

import functools
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlhf_lightning.isolation.channel import Channel, ProgramError, Unscorable
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.isolation.zygote import Exit, Isolation, IsolationError, Zygote

LIMITS = Limits(seconds=5.0, memory_mb=256)
LOOP_SECONDS = 0.2
PROBE = """
import ctypes, os, signal, socket, subprocess

def attempts(secret, folder, port, judge, megabytes):
    def connect(family, address, kind=socket.SOCK_STREAM):
        with socket.socket(family, kind) as connection:
            connection.settimeout(1)
            connection.connect(address)

    def fork():
        for _ in range(100):
            if os.fork() == 0:
                os._exit(0)

    def start_thread():
        import _thread
        _thread.start_new_thread(int, ())

    def read_memory():
        libc, text = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(text), 8)
        source = (ctypes.c_size_t * 2)(0, 8)
        if libc.process_vm_readv(judge, vector, 1, source, 1, 0) < 0 and ctypes.get_errno() in (1, 3):
            raise PermissionError

    return {
        "reads files outside of Python's library": lambda: open(secret).read(),
        "lists the home folder": lambda: os.listdir(os.path.dirname(secret)),
        "reads the judge's environment": lambda: open(f"/proc/{judge}/environ").read(1),
        "writes files": lambda: open(os.path.join(folder, "written"), "w").write("x"),
        "makes folders": lambda: os.mkdir(os.path.join(folder, "made")),
        "opens TCP connections": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
        "opens UDP sockets": lambda: connect(socket.AF_INET, ("127.0.0.1", port), socket.SOCK_DGRAM),
        "opens local sockets": lambda: socket.socketpair(),
        "starts processes": fork,
        "runs programs": lambda: subprocess.run(["/bin/true"]),
        "starts threads": start_thread,
        "sends signals": lambda: os.kill(judge, 0),
        "reads other processes' memory": read_memory,
        "takes twice its memory": lambda: bytearray(megabytes * 2 * 2**20),
    }

def probe(*args):
    succeeded = []
    for name, attempt in attempts(*args).items():
        try:
            attempt()
        except (OSError, MemoryError, RuntimeError):
            continue
        succeeded.append(name)
    return succeeded

def loop():
    while True:
        pass
"""


@functools.cache
def check_isolation(isolation: Isolation) -> None:
    """Let a program in a sandbox try what it must not. Raises IsolationError with what it could do."""
    if not sys.platform.startswith("linux"):
        raise IsolationError(f"it needs Linux, and this is {sys.platform}")
    zygote = Zygote(isolation)
    try:
        permitted = _probe(zygote)
        if permitted:
            raise IsolationError(f"it does not isolate: a program {', '.join(permitted)}")
        _check_time_limit(zygote)
    except (ProgramError, Unscorable) as error:
        raise IsolationError(f"its self-test failed: {error}") from error
    finally:
        zygote.close()


def _probe(zygote: Zygote) -> list[str]:
    """Names of the attempts that succeed."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(folder, "secret")
        secret.write_text("secret", encoding="utf-8")
        with zygote.child(LIMITS, Exit()) as channel:
            _load(channel, "probe")
            channel.send(["probe", ["list", str(secret), folder, server.getsockname()[1], os.getpid(), LIMITS.memory_mb], ["dict"]])
            kind, *content = channel.receive()
    if kind != "value":
        raise ProgramError(f"{content}")
    permitted: list[str] = content[0][1:]
    return permitted


def _check_time_limit(zygote: Zygote) -> None:
    """Check that an endless loop is ended in time."""
    end = Exit()
    try:
        with zygote.child(Limits(seconds=LOOP_SECONDS), end) as channel:
            _load(channel, "loop")
            channel.send(["loop", ["list"], ["dict"]])
            channel.receive()
    except ProgramError as error:
        if "time limit" in str(error) and end.cpu_seconds < 10 * LOOP_SECONDS:
            return
        raise
    raise ProgramError("an endless loop ended")


def _load(channel: Channel, entry_point: str) -> Any:
    channel.send({"role": "candidate", "source": PROBE, "prompt": "", "entry_point": entry_point})
    message = channel.receive()
    if message != ["loaded"]:
        raise ProgramError(f"{message}")
