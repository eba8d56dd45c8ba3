"""The program inside a sandbox: a process that forks a child for each untrusted program.

It imports the standard library only and runs as the source text of `python -c`. It takes a channel's file descriptor for each child from
its control socket, and never reads the channel. A child gives up its rights, then reads its request: the role "candidate" serves the calls
of a program's functions, the role "test" runs check(candidate) with functions whose calls go out through the channel. Nothing in a
candidate's process is trusted: what it writes is data for the other side to judge.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import gc
import importlib
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NoReturn

CHANNEL = 3
"""File descriptor of a child's channel."""
SMALL = 2**53
CONTAINERS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
PRELOADED = ("collections", "copy", "datetime", "functools", "heapq", "itertools", "math", "operator", "random", "re", "string", "typing")
"""Modules loaded once for all children; a test may use them without importing them."""
DOCSTRING = re.compile(r"""(:[ \t]*\n)\s*(\"\"\"|''').*?\2\s*$""", re.DOTALL)
IMPORTS = (ast.Import, ast.ImportFrom)
ENDS_ITERATION = ("StopIteration", "StopAsyncIteration")
"""Exceptions that would end a loop of the test early instead of failing it."""


def serve(control_fd: int, seccomp: bytes) -> NoReturn:
    """Fork a child for each channel received, and kill and reap it on request; exit with the other side."""
    control = socket.socket(fileno=control_fd)
    gc.freeze()
    control.send(b"ready")
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            run_child(descriptors[0], json.loads(data), seccomp)
        os.close(descriptors[0])
        request = control.recv(16)
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        if not request:
            os._exit(0)
        control.send(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]).encode())


def run_child(descriptor: int, limits: dict[str, int], seccomp: bytes) -> NoReturn:
    """Serve one channel with the rights of an untrusted program; never returns."""
    try:
        os.dup2(descriptor, CHANNEL, inheritable=False)
        os.closerange(CHANNEL + 1, 1024)
        give_up_rights(limits, seccomp)
        write_message(["ready"])
        request = read_message()
        (test if request["role"] == "test" else serve_calls)(request)
    except BaseException as error:
        write_message(["error", type(error).__name__, str(error)[:500]])
    os._exit(0)


def give_up_rights(limits: dict[str, int], seccomp: bytes) -> None:
    """Set resource limits, drop capabilities and install the system-call filter. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if seccomp:
        filters = ctypes.create_string_buffer(seccomp, len(seccomp))
        program = struct.pack("HxxxxxxP", len(seccomp) // 8, ctypes.addressof(filters))
        header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
        steps = [
            libc.prctl(4, 0, 0, 0, 0),  # PR_SET_DUMPABLE
            libc.capset(header, nothing),
            libc.prctl(38, 1, 0, 0, 0),  # PR_SET_NO_NEW_PRIVS
            libc.prctl(22, 2, program, 0, 0),  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        ]
        if any(steps):
            raise OSError(ctypes.get_errno(), f"the rights can't be given up: {steps}")


def serve_calls(request: dict[str, Any]) -> None:
    """Run a program, then call the function that each message names and write the value."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(compile_program(request["source"], request["prompt"]), module.__dict__)
    if not callable(module.__dict__.get(request["entry_point"])):
        raise NameError(f"the program defines no function {request['entry_point']}")
    write_message(["loaded"])
    while True:
        name, args, kwargs = read_message()
        try:
            value = module.__dict__[name](*decode(args), **decode(kwargs))
        except BaseException as error:
            write_message(["error", type(error).__name__, str(error)[:500]])
            continue
        try:
            message = ["value", encode(value)]
        except Exception as error:
            message = ["not_data", f"{type(error).__name__}: {error}"[:500]]
        write_message(message)


def compile_program(source: str, prompt: str) -> types.CodeType:
    """Compile a program, without the prompt's docstring if its indentation alone is wrong."""
    try:
        return compile(source, "<program>", "exec")
    except IndentationError:
        signature = DOCSTRING.sub(r"\1", prompt)
        if signature == prompt or not source.startswith(prompt):
            raise
        return compile(signature + source[len(prompt) :], "<program>", "exec")


def test(request: dict[str, Any]) -> None:
    """Run tests, each in its own namespace, and write a verdict for each of them."""
    nodes = [node for source in request["tests"] for node in ast.walk(ast.parse(source))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)} - {request["entry_point"]}
    helpers: dict[str, Any] = {"__name__": "test"} | {name: sys.modules[name] for name in PRELOADED if name in names}
    exec(compile(helper_code(request["prompt"], names), "<prompt>", "exec"), helpers)
    # What nothing else defines is a function of the program: some tests of MBPP call another one than the entry point.
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    assigned |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned |= {(alias.asname or alias.name).partition(".")[0] for node in nodes if isinstance(node, IMPORTS) for alias in node.names}
    assigned |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    free = {request["entry_point"]} | {name for name in names - assigned - helpers.keys() if not hasattr(builtins, name)}
    functions = {name: remote_function(name) for name in free}
    helpers |= functions
    for source in request["tests"]:
        scope = dict(helpers)
        try:
            exec(compile(source, "<test>", "exec"), scope)
            scope["check"](functions[request["entry_point"]])
        except BaseException as error:
            write_message(["verdict", False, f"{type(error).__name__}: {error}"[:500]])
        else:
            write_message(["verdict", True, ""])


def remote_function(name: str) -> Callable[..., Any]:
    """A function of the program behind the channel: plain data and built-in exceptions come back."""

    def candidate(*args: Any, **kwargs: Any) -> Any:
        write_message(["call", name, encode(args), encode(kwargs)])
        reply = read_message()
        if reply[0] == "value":
            return decode(reply[1])
        kind = getattr(builtins, reply[1], RuntimeError)
        is_error = isinstance(kind, type) and issubclass(kind, Exception) and reply[1] not in ENDS_ITERATION
        try:
            error = (kind if is_error else RuntimeError)(reply[2])
        except Exception:
            error = RuntimeError(reply[2])
        raise error

    candidate.__name__ = candidate.__qualname__ = name
    return candidate


def helper_code(prompt: str, names: set[str]) -> ast.Module:
    """The prompt's imports, and those of its definitions that the tests name."""
    try:
        statements = ast.parse(prompt).body
    except SyntaxError:
        statements = []
    body: list[ast.stmt] = []
    for statement in reversed(statements):
        if isinstance(statement, IMPORTS):
            body.append(statement)
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name in names:
            names = names | {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            body.append(statement)
    return ast.Module(body=body[::-1], type_ignores=[])


def encode(value: Any) -> Any:
    """Write plain data as JSON; containers are arrays that begin with their kind. Raises TypeError."""
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -SMALL < value < SMALL else ["int", hex(value)]
    if kind in CONTAINERS:
        return [CONTAINERS[kind], *map(encode, value)]
    if kind in MAPPINGS:
        return ["dict", *(encode(part) for item in value.items() for part in item)]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is range:
        return ["range", *map(encode, (value.start, value.stop, value.step))]
    if kind is re.Match:
        return ["match", str(value[0])]
    raise TypeError(f"{kind.__name__} is not plain data")


def decode(wire: Any) -> Any:
    """The value of `encode`'s JSON, of built-in types only."""
    if not isinstance(wire, list):
        return wire
    kind, *parts = wire
    if kind == "int":
        return int(parts[0], 16)
    if kind in ("bytes", "bytearray"):
        return getattr(builtins, kind).fromhex(parts[0])
    if kind == "match":
        return re.fullmatch(re.escape(parts[0]), parts[0])
    values = [decode(part) for part in parts]
    if kind == "dict":
        return dict(zip(values[::2], values[1::2], strict=True))
    if kind in ("complex", "range"):
        return getattr(builtins, kind)(*values)
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](values)


def write_message(message: Any) -> None:
    """Write a message to the channel: its length in four bytes, then JSON."""
    data = json.dumps(message).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(CHANNEL, data) :]


def read_message() -> Any:
    """Read a message from the channel; exit where it is closed."""
    return json.loads(_read(struct.unpack(">I", _read(4))[0]))


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(CHANNEL, size)
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def confine(site: str, readable: list[str]) -> None:
    """Restrict this process and its children to reading some folders, by Landlock."""
    sys.path.insert(0, site)
    import sandlock

    sys.path.remove(site)
    sandlock.confine(sandlock.Sandbox(fs_readable=readable, allow_degraded=list(sandlock.Protection)))


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    settings = json.loads(sys.argv[1])
    sys.argv[1:] = []
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if settings["site"]:
        confine(settings["site"], settings["readable"])
    os.dup2(null, 2)
    serve(settings["control"], bytes.fromhex(settings["seccomp"]))
