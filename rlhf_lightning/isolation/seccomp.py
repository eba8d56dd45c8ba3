"""The system calls of an untrusted program, as a seccomp filter: all others fail with EPERM."""

from __future__ import annotations

import platform
import struct
from collections.abc import Sequence

from rlhf_lightning.errors import ConfigError

# Each line: name, number on x86_64, number on aarch64 ("-" where the machine hasn't it). Frequent ones first.
ALLOWED = """
read 0 63, write 1 64, futex 202 98, mmap 9 222, munmap 11 215, brk 12 214, mremap 25 216, mprotect 10 226, madvise 28 233, close 3 57,
fstat 5 80, newfstatat 262 79, statx 332 291, stat 4 -, lstat 6 -, lseek 8 62, getdents64 217 61, pread64 17 67, readv 19 65,
writev 20 66, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getcwd 79 17, fadvise64 221 223,
dup 32 23, dup2 33 -, dup3 292 24, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, sched_yield 24 124, sched_getaffinity 204 123,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, times 100 153,
getitimer 36 102, setitimer 38 103, alarm 37 -, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132,
restart_syscall 219 128, getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
uname 63 160, sysinfo 99 179, getrusage 98 165, getrlimit 97 163, getrandom 318 278, membarrier 324 283, set_robust_list 273 99,
rseq 334 293, exit 60 93, exit_group 231 94
"""
ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
"""AUDIT_ARCH and the column of ALLOWED, by machine."""
ARGUMENT_CHECKED = {"x86_64": (257, 2, 72, 302), "aarch64": (56, None, 25, 261)}
"""Numbers of openat, open, fcntl and prlimit64, which are allowed with some arguments only."""
WRITING = 0x1 | 0x2 | 0x40 | 0x200 | 0x400000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE."""
FCNTL_COMMANDS = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; no F_SETOWN, which sends signals."""

_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


def seccomp_filter(machine: str | None = None) -> bytes:
    """Assemble the filter, an array of struct sock_filter.

    Files open for reading only; no process, thread, socket, signal to others, pipe, shared memory, namespace or tracing.

    Raises:
        ConfigError: a machine whose system calls aren't listed here.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise ConfigError(f"no system-call filter for {machine} machines: there is one for {', '.join(ARCHITECTURES)}")
    audit_arch, column = ARCHITECTURES[machine]
    openat, open_, fcntl, prlimit = ARGUMENT_CHECKED[machine]
    program = [_jump(_LOAD, 4), _jump(_JUMP_EQUAL, audit_arch, 1, 0), _jump(_RETURN, _KILL), _jump(_LOAD, 0)]
    for entry in ALLOWED.replace("\n", " ").split(","):
        number = entry.split()[column]
        if number != "-":
            program += [_jump(_JUMP_EQUAL, int(number), 0, 1), _jump(_RETURN, _ALLOW)]
    program += _if_call(openat, [_jump(_LOAD, _argument(2)), _jump(_JUMP_ANY_BIT, WRITING, 1, 0), _jump(_RETURN, _ALLOW)])
    if open_ is not None:
        program += _if_call(open_, [_jump(_LOAD, _argument(1)), _jump(_JUMP_ANY_BIT, WRITING, 1, 0), _jump(_RETURN, _ALLOW)])
    commands = [step for command in FCNTL_COMMANDS for step in (_jump(_JUMP_EQUAL, command, 0, 1), _jump(_RETURN, _ALLOW))]
    program += _if_call(fcntl, [_jump(_LOAD, _argument(1)), *commands])
    # prlimit64(0, resource, NULL, old): reads the limits of the caller.
    zero = [step for word in (0, 16, 20) for step in (_jump(_LOAD, 16 + word), _jump(_JUMP_EQUAL, 0, 1, 0), _jump(_RETURN, _DENY))]
    program += _if_call(prlimit, [*zero, _jump(_RETURN, _ALLOW)])
    return b"".join([*program, _jump(_RETURN, _DENY)])


def _jump(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _argument(index: int) -> int:
    """Offset of the low word of an argument in struct seccomp_data, on little-endian machines."""
    return 16 + 8 * index


def _if_call(number: int | None, steps: Sequence[bytes]) -> list[bytes]:
    """Steps for one system call, denied at their end; another number skips them."""
    assert number is not None
    return [_jump(_JUMP_EQUAL, number, 0, len(steps) + 1), *steps, _jump(_RETURN, _DENY)]
