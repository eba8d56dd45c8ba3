"""The judge's end of a channel to an untrusted program: capped messages and fair time limits."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from pathlib import Path
from typing import Any

from rlhf_lightning.isolation.limits import Limits

PATIENCE, MIN_PATIENCE = 5, 15.0
"""Time limits, and seconds, that a program may take in all on a busy machine before it is given up as not judgeable."""
START_SECONDS = 20.0
CREDENTIALS = struct.calcsize("3i")


class ProgramError(Exception):
    """A program that broke a limit or the protocol; the message is the reason."""


class Unscorable(Exception):
    """A program that can't be judged: the machine is too busy, or the sandbox ended."""


class Channel:
    """Messages to and from one untrusted process.

    The time limit counts the seconds in which the judge waits for the program, less those in which the program waited for a processor.

    Raises:
        ProgramError: of each method: the program ended, is too slow, writes too much, or writes no message.
        Unscorable: of each method: the machine is too busy for a verdict.
    """

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self.connection, self.limits = connection, limits
        self.waited = 0.0
        self.bytes_read = 0
        self.schedule: Path | None = None
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def receive_ready(self) -> None:
        """Read the first message, which the trusted part writes; the kernel names its process."""
        self._wait(select.POLLIN, START_SECONDS)
        data, ancillary, _, _ = self.connection.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS))
        if data[4:] != b'["ready"]':
            raise ProgramError(f"the sandbox did not start: {data[4:].decode(errors='replace')}")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.schedule = Path(f"/proc/{struct.unpack('3i', content[:CREDENTIALS])[0]}/schedstat")
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self.waited = 0.0  # until here the time is the sandbox's

    def receive(self) -> Any:
        """The next message; nothing about it is checked but that it is JSON."""
        size: int = struct.unpack(">I", self._read(4))[0]
        self.bytes_read += size
        if self.bytes_read > self.limits.output_bytes:
            raise ProgramError(f"output limit: more than {self.limits.output_bytes} bytes")
        try:
            return json.loads(self._read(size))
        except (ValueError, RecursionError) as error:
            raise ProgramError("it wrote something else than messages") from error

    def send(self, message: Any) -> None:
        """Write a message, within the time limit if the program doesn't read."""
        data = json.dumps(message).encode()
        data = struct.pack(">I", len(data)) + data
        while data:
            try:
                data = data[self.connection.send(data) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, self.limits.seconds)
            except OSError as error:
                raise ProgramError("the process ended") from error

    def close(self) -> None:
        self.connection.close()

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            self._wait(select.POLLIN, self.limits.seconds)
            try:
                part = self.connection.recv(min(size, 65536))
            except OSError as error:
                raise ProgramError("the process ended") from error
            if not part:
                raise ProgramError("the process ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _wait(self, event: int, limit: float) -> None:
        """Wait until the connection is ready. Raises ProgramError after the limit, or Unscorable."""
        poll = select.poll()
        poll.register(self.connection, event)
        start = time.monotonic()
        while not poll.poll(max(0.0, limit - self._time_used(start)) * 1000 + 1):
            if self._time_used(start) >= limit:
                raise ProgramError(f"time limit: more than {limit:g} s")
            if self.waited + time.monotonic() - start > max(MIN_PATIENCE, PATIENCE * limit):
                raise Unscorable(f"the machine is busy: the program waited {self._queue_seconds():.3g} s for a processor")
        self.waited += time.monotonic() - start

    def _time_used(self, start: float) -> float:
        return self.waited + time.monotonic() - start - self._queue_seconds()

    def _queue_seconds(self) -> float:
        """Seconds that the process was ready to run and had no processor; 0 where they aren't counted."""
        try:
            return int(self.schedule.read_text().split()[1]) / 1e9 if self.schedule else 0.0
        except (OSError, IndexError, ValueError):
            return 0.0
