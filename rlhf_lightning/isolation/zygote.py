"""One running sandbox: a trusted process inside it that forks a child for each untrusted program."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from rlhf_lightning.errors import UserError
from rlhf_lightning.isolation.channel import Channel, Unscorable
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.isolation.seccomp import seccomp_filter

START_SECONDS = 20.0
REPLY_SECONDS = 10.0
GUEST = Path(__file__).with_name("guest.py")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
SYSTEM_LIBRARIES = [Path(folder) for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64")]
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}


class IsolationError(UserError):
    """A sandbox that doesn't start or doesn't isolate; the message is the reason."""


@dataclass(frozen=True)
class Isolation:
    """Start of a sandbox.

    Attributes:
        prefix: the command before the Python interpreter.
        landlock: the guest confines itself to reading Python's own folders.
        filter: children install the system-call filter.
    """

    prefix: tuple[str, ...] = ()
    landlock: bool = False
    filter: bool = True


@dataclass
class Exit:
    """End of a child.

    Attributes:
        status: wait status of os.wait4; SIGKILL for a child that was still running.
        cpu_seconds: processor time.
        peak_kb: peak resident memory, KiB.
    """

    status: int = 0
    cpu_seconds: float = 0.0
    peak_kb: int = 0


class Zygote:
    """A sandbox that serves one untrusted program after the other, each in a fork of its first process.

    Raises:
        IsolationError: it doesn't start.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._control, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "judge": os.getpid(),  # for those who look at the list of processes
            "control": inside.fileno(),
            "seccomp": seccomp_filter().hex() if isolation.filter else "",
            "site": str(sandlock_folder()) if isolation.landlock else "",
            "readable": [str(file) for file in python_files()] if isolation.landlock else [],
        }
        guest = [python_executable(), "-S", "-s", "-P", "-c", GUEST.read_text(encoding="utf-8"), json.dumps(settings)]
        try:
            self._process = subprocess.Popen(
                [*isolation.prefix, *guest], pass_fds=[inside.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise IsolationError(f"{isolation.prefix[0] if isolation.prefix else 'python'} can't be started: {error}") from error
        finally:
            inside.close()
        self._end = finalize(self, _end, self._process, self._control, os.getpid())
        self._control.settimeout(START_SECONDS)
        try:
            is_ready = self._control.recv(16) == b"ready"
        except TimeoutError:
            is_ready = False
        if not is_ready:
            assert self._process.stderr is not None
            self.close()
            lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise IsolationError(lines[-1] if lines else f"it didn't start within {START_SECONDS:g} s")
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._control.settimeout(REPLY_SECONDS)

    @contextmanager
    def child(self, limits: Limits, result: Exit) -> Iterator[Channel]:
        """A channel to a new untrusted process, which is killed and reaped at the end of the block.

        Args:
            result: filled in at the end.

        Raises:
            Unscorable: the sandbox ended.
        """
        ours, inside = socket.socketpair()
        channel = Channel(ours, limits)
        try:
            with inside:
                socket.send_fds(self._control, [json.dumps(limits.resource_limits()).encode()], [inside.fileno()])
            try:
                channel.receive_ready()
                yield channel
            finally:
                self._control.send(b"reap")
                result.status, result.cpu_seconds, result.peak_kb = json.loads(self._control.recv(4096))
        except (OSError, ValueError) as error:
            self.close()
            raise Unscorable(f"the sandbox ended: {error}") from error
        finally:
            channel.close()

    @property
    def is_alive(self) -> bool:
        return self._end.alive

    def close(self) -> None:
        """End all processes of the sandbox."""
        self._end()


def _end(process: subprocess.Popen[bytes], control: socket.socket, owner: int) -> None:
    """End a sandbox: its first process ends with the control socket. Forks of the owner end nothing."""
    if os.getpid() != owner:
        return
    with suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)
    control.close()
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def python_executable() -> str:
    """The interpreter itself, outside of a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def python_files() -> list[Path]:
    """Files that a program without packages reads: the standard library and the system's libraries."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    modules = [entry for entry in library.iterdir() if entry.name not in PACKAGE_FOLDERS]
    return [*modules, *(folder for folder in SYSTEM_LIBRARIES if folder.is_dir())]


def sandlock_folder() -> Path:
    """The folder that sandlock is installed in. Raises IsolationError without it."""
    spec = importlib.util.find_spec("sandlock")
    if spec is None or spec.origin is None:
        raise IsolationError("sandlock is not installed: pip install 'rlhf-lightning[code]'")
    return Path(spec.origin).parent.parent
