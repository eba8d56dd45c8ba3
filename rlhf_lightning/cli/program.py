"""The process of a command: Ctrl-C while it loads, its exit code, a closed output."""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType

CLOSED = 128 + signal.SIGPIPE
"""Exit code where nobody reads the output any more, as of other programs."""


def program() -> None:
    """Run one command and exit; the entry point of all ways to start the program."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_while_loading)
    from rlhf_lightning.cli.main import main
    from rlhf_lightning.cli.user_errors import print_traceback
    from rlhf_lightning.training.distributed import world_size

    code = 0
    try:
        main()
    except SystemExit as stop:
        code = _code_of(stop)
    except Exception as error:
        code = 1
        if _drop_unread_output() and isinstance(error, BrokenPipeError):
            code = CLOSED
        else:
            print_traceback(error)
    if _drop_unread_output():
        code = code or CLOSED
    if world_size() > 1:
        # torch 2.13 with gloo aborts now and then while it takes its threads apart (SIGABRT, one in four on a loaded machine).
        os._exit(code)
    sys.exit(code)


def _exit_while_loading(number: int, frame: FrameType | None) -> None:
    """Exit without a traceback: nothing is open yet that must be closed."""
    os.write(2, b"stopped by SIGINT\n")
    os._exit(128 + number)


def _code_of(stop: SystemExit) -> int:
    """The exit code of a SystemExit, its message printed as Python does."""
    if isinstance(stop.code, str):
        print(stop.code, file=sys.stderr)
    return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1


def _drop_unread_output() -> bool:
    """Flush stdout and stderr; return True if a reader has gone (`| head`), and drop the rest."""
    unread = []
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            poll = select.poll()
            poll.register(stream, 0)
            unread += [stream for _, event in poll.poll(0) if event & select.POLLERR]
        except BrokenPipeError:
            unread.append(stream)
    for stream in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)
