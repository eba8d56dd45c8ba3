"""Python programs as forks of a process that has imported everything: 50 milliseconds where a new interpreter takes five seconds.

`ForkedPopen([sys.executable, "train.py", ...])` is `subprocess.Popen` for a command of this Python, or of another environment's. The
child is a real process with its own session, folder, environment and output, killed and waited for as any other. What only a new
interpreter shows (start-up time, imports, environment variables that libraries read at import) needs `subprocess`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib.util
import inspect
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPORT_TIME = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Variables that libraries read when they are imported."""
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
MESSAGE = 200_000
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class ForkedPopen(subprocess.Popen[Any]):
    """A command of a Python, forked from its server.

    Args:
        spares: Python processes that the command itself will start (by Lightning or torchrun); they are forked too.
        nested: Python processes that each of these will start.
    """

    def __init__(self, command: Sequence[str], *, spares: int = 0, nested: int = 0, **settings: Any) -> None:
        self._spares, self._nested = spares, nested
        super().__init__(list(command), **settings)

    def _execute_child(self, *args: Any) -> None:
        request, files = _request(self, args)
        numbers = {"parent": os.getpid(), "spares": self._spares, "nested": self._nested}
        self.pid = _ask(_server(request["argv"][0]), {**request, **numbers}, files)
        _created(self, args)


class SparePopen(subprocess.Popen[Any]):
    """`subprocess.Popen` within a forked command: a Python program becomes one of its spares while there are some."""

    spares: list[tuple[int, socket.socket]] = []  # noqa: RUF012
    nested = 0

    def _execute_child(self, *args: Any) -> None:
        request, files = _request(self, args)
        if not self.spares or request["argv"][:1] != [sys.executable]:
            return super()._execute_child(*args)  # type: ignore[misc, no-any-return]
        _, connection = self.spares.pop(0)
        self.pid = _ask(connection, {**request, "parent": os.getpid(), "spares": self.nested, "nested": 0}, files)
        connection.close()
        _created(self, args)
        return None


def run(command: Sequence[str], *, timeout: float, spares: int = 0, **settings: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with captured text for a command of a Python."""
    with ForkedPopen(command, spares=spares, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def _request(process: Any, args: Sequence[Any]) -> tuple[dict[str, Any], list[int]]:
    """A command as JSON, and its stdin, stdout and stderr."""
    bound = _EXECUTE.bind(process, *args).arguments
    words = bound["args"]
    request = {
        "argv": [words] if isinstance(words, str) else [os.fspath(word) for word in words],
        "env": dict(os.environ if bound["env"] is None else bound["env"]),
        "cwd": os.fspath(bound["cwd"] or os.getcwd()),
        "session": bool(bound["start_new_session"]),
    }
    return request, [own if own != -1 else i for i, own in enumerate((bound["p2cread"], bound["c2pwrite"], bound["errwrite"]))]


def _created(process: Any, args: Sequence[Any]) -> None:
    bound = _EXECUTE.bind(process, *args).arguments
    process._child_created = True
    process._close_pipe_fds(*(bound[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))


def _ask(connection: socket.socket, request: dict[str, Any], files: list[int]) -> int:
    """The number of the process that carries a request out."""
    socket.send_fds(connection, [json.dumps(request).encode()], files)
    return int(connection.recv(MESSAGE))


@functools.cache
def _server(python: str) -> socket.socket:
    """The connection to this process's server of an interpreter, which ends with it."""
    # Grandchildren whose parent has ended become this process's children, so that it can wait for them.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = os.environ | IMPORT_TIME | {"PYTHONPATH": str(ROOT) if python == sys.executable else "", "RLHF_PLUGINS": ""}
    subprocess.Popen([python, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=env, cwd="/")
    theirs.close()
    return ours


@contextmanager
def adopt_no_orphans() -> Iterator[None]:
    """Let grandchildren whose parent ends go to init, as where no server was started."""
    libc, adopts = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, adopts.value, 0, 0, 0)


def _serve(connection: socket.socket) -> None:
    """Import everything, then fork for each request; in the child, carry it out."""
    import torch
    from hydra._internal.hydra import Hydra

    from rlhf_lightning.registry import load_components

    torch.set_num_threads(1)
    # Hydra composes the command once, not a second time to learn whether it is a sweep.
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    os.fsync = lambda _: None  # a killed process loses nothing that it has written; only a machine does
    load_components([])
    for module in ("rlhf_lightning.cli.main", "lightning", "transformers", "torch.distributed.run", "tensorboard", "peft"):
        __import__(module)
    for module in ("sqlalchemy.dialects.sqlite", "starlette.routing", "uvicorn"):  # of extras
        if importlib.util.find_spec(module.partition(".")[0]):
            __import__(module)
    gc.collect()
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(connection, MESSAGE, 3)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            if os.fork():
                os._exit(0)
            _become(connection, json.loads(message), files)
        os.waitpid(between, 0)
        for file in files:
            os.close(file)


def _become(connection: socket.socket, request: dict[str, Any], files: list[int]) -> None:
    """Turn this process into the program of a request, and end with it."""
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for name, number in (("stdout", 1), ("stderr", 2)):
        buffering = 1 if name == "stderr" or "PYTHONUNBUFFERED" in os.environ else -1
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=buffering, closefd=False))  # noqa: SIM115
    SparePopen.spares, SparePopen.nested = [_spare() for _ in range(request["spares"])], request["nested"]
    for module in ("subprocess", "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"):
        setattr(sys.modules[module], "Popen", SparePopen)
    while os.getppid() != request["parent"]:
        time.sleep(0.001)
    connection.send(str(os.getpid()).encode())
    connection.close()
    code: object = 1
    try:
        code = _run(request["argv"][1:])
    finally:
        _end(code)


def _spare() -> tuple[int, socket.socket]:
    """A process that waits for a program, and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    ours.close()
    for _, other in SparePopen.spares:
        other.close()
    message, files, _, _ = socket.recv_fds(theirs, MESSAGE, 3)
    if not message:
        os._exit(0)
    _become(theirs, json.loads(message), files)
    raise AssertionError("never here")


def _run(words: list[str]) -> object:
    """Run `[-u] FILE ...`, `-m MODULE ...` or `-c CODE` as the interpreter does. Returns its exit code."""
    words = words[1:] if words[0] == "-u" else words
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], os.getcwd()
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *words[2:]], ""
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def _end(code: object) -> None:
    """Leave as an interpreter does, without taking all modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
