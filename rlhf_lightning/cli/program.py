"""The program as a process. A Ctrl-C while it still loads its libraries ends it without a traceback."""

from __future__ import annotations

import os
import signal
from types import FrameType


def program() -> None:
    """Load and run the command line; `python train.py`, `python -m rlhf_lightning` and `rlhf-lightning` begin here."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    from rlhf_lightning.cli.main import program as run

    run()


def _stop(number: int, frame: FrameType | None) -> None:
    """Nothing is open yet that must be closed."""
    os.write(2, b"stopped by SIGINT\n")
    os._exit(128 + number)
