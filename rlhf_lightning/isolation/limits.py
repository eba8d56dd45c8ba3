"""The limits of an untrusted program."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Resources of one untrusted program.

    Attributes:
        seconds: of processor time, and of time that it makes the judge wait.
        memory_mb: address space, in MiB.
        output_bytes: of all its values together.
    """

    seconds: float = 6.0
    memory_mb: int = 512
    output_bytes: int = 2**20

    def resource_limits(self) -> dict[str, int]:
        """Values of setrlimit by name: no files are written, no core is dumped, few descriptors are open."""
        return {
            "RLIMIT_CPU": math.ceil(self.seconds) + 1,
            "RLIMIT_AS": self.memory_mb * 2**20,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 32,
            "RLIMIT_MEMLOCK": 0,
        }
