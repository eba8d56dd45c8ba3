"""Time and memory limits for chat templates, which are programs of a model's author."""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlhf_lightning.errors import DataError

SECONDS = 10.0
"""Time limit for one chat."""
POLL, IDLE = 0.1, 5.0
"""Seconds between checks of the clock, and until the idle watchdog thread ends."""
ADDED_BYTES = 1 << 30
"""Limit of memory beyond the process's current size."""
MAX_CHARACTERS = 1 << 24
"""Limit of a rendered chat, and of a template."""
MAX_EXPONENT = 64
"""Limit of the exponent and the base of a power."""
PAGE = os.sysconf("SC_PAGE_SIZE")

_failed: dict[str, str] = {}
"""Reasons of templates that exceeded a limit, by their text, so that none is tried twice."""


class _OverTime(BaseException):
    """Raised within a template; no Exception, so that no handler on the way catches it."""


def render_bounded(template: str, render: Callable[[], str]) -> str:
    """Call `render`, which runs the template, within the limits.

    Raises:
        DataError: the template exceeds SECONDS, ADDED_BYTES or MAX_CHARACTERS, or has an operation that can't be interrupted.
        Exception: any of `render`.
    """
    reason = _failed.get(template) or check_template(template)
    if not reason:
        try:
            with _memory_limit(), _watchdog.limit():
                text = render()
            if len(text) <= MAX_CHARACTERS:
                return text
            reason = f"makes more than {MAX_CHARACTERS:,} characters of a chat"
        except _OverTime:
            reason = f"takes more than {SECONDS:g} s for a chat"
        except MemoryError:
            reason = f"takes more than {ADDED_BYTES >> 20:,} MiB of memory for a chat"
        _failed[template] = reason
    raise DataError(f"the chat template {reason}: it is damaged or hostile; give the model another chat_template")


class _Generation(Extension):
    """The tag with which templates mark the model's text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


@functools.lru_cache
def check_template(template: str) -> str:
    """The reason to reject a template without running it (its size, or unbounded powers), else ''."""
    if len(template) > MAX_CHARACTERS:
        return f"has more than {MAX_CHARACTERS:,} characters"
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])
    try:
        tree = environment.parse(template)
        powers = [operand for node in tree.find_all(nodes.Pow) for operand in (node.left, node.right)]
        powers += [argument for node in tree.find_all(nodes.Filter) if node.name == "round" for argument in node.args[:1]]
        powers += [pair.value for node in tree.find_all(nodes.Filter) if node.name == "round" for pair in node.kwargs]
    except RecursionError:
        return "is nested too deeply"
    except jinja2.TemplateError:
        return ""  # rendering reports it
    for power in powers:
        if not isinstance(power, nodes.Const) or (isinstance(power.value, int) and abs(power.value) > MAX_EXPONENT):
            return f"computes a power in line {power.lineno} whose size isn't bounded"
    return ""


class _Watchdog:
    """Raises _OverTime in threads that render for more than SECONDS; its thread ends when idle."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: dict[int, float] = {}
        self.thread: threading.Thread | None = None

    @contextmanager
    def limit(self) -> Iterator[None]:
        caller = threading.get_ident()
        with self.lock:
            self.ends[caller] = time.monotonic() + SECONDS
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._watch, daemon=True, name="chat-template-limit")
                self.thread.start()
        try:
            yield
        finally:
            with self.lock:
                fired = self.ends.pop(caller, None) is None
            if fired:  # it may still be pending, and would be raised anywhere
                _raise_in(caller, None)

    def _watch(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(POLL)
            now = time.monotonic()
            with self.lock:
                for caller in [caller for caller, end in self.ends.items() if now > end]:
                    del self.ends[caller]
                    _raise_in(caller, _OverTime)
                idle_since = now if self.ends else idle_since
                if now - idle_since > IDLE:
                    self.thread = None
                    return


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in a thread asynchronously; None cancels a pending one."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))


_watchdog = _Watchdog()


@contextmanager
def _memory_limit() -> Iterator[None]:
    """Raise MemoryError if the process grows by more than ADDED_BYTES."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounded = _size() + ADDED_BYTES
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    if bounded == ADDED_BYTES or any(limit <= bounded for limit in limits):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (bounded, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size() -> int:
    """Bytes of the process's address space; 0 if unknown."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * PAGE
    except (OSError, ValueError):
        return 0
