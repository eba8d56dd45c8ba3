"""`python tests/checkpoint/timings.py --times 10`: how long a tiny run takes from SIGTERM to its exit, and from a restart to a new step.

The whole command is timed, with its imports. Prints the seconds of every time, sorted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_lightning.checkpoint.store import CheckpointStore

LONG = ["sft.epochs=100000", "hydra.run.dir=out"]


def load_commands() -> Any:
    spec = importlib.util.spec_from_file_location("checkpoint_commands", Path(__file__).with_name("test_commands.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["checkpoint_commands"] = module
    spec.loader.exec_module(module)
    return module


def newest(folder: Path) -> int:
    """The step of the newest checkpoint by its name, without reading it."""
    return max((int(path.name.partition("_")[2]) for path in folder.glob("step_*")), default=0)


def waited(until: Callable[[], bool], at_most: float = 300.0) -> float:
    begun = time.monotonic()
    while not until():
        if time.monotonic() - begun > at_most:
            raise TimeoutError
        time.sleep(0.01)
    return time.monotonic() - begun


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--times", type=int, default=10)
    times, commands = words.parse_args().times, load_commands()
    found: dict[str, list[float]] = {"SIGTERM to exit": [], "restart to first new step": []}
    with tempfile.TemporaryDirectory() as top:
        folder = commands.world(Path(top))
        steps, run = folder / "out" / "checkpoints" / "sft", commands.Command(folder, *commands.WORDS, *LONG)
        waited(lambda: newest(steps) > 0)
        for _ in range(times):
            begun = time.monotonic()
            run.process.send_signal(signal.SIGTERM)
            run.ended()
            found["SIGTERM to exit"].append(time.monotonic() - begun)
            assert run.code == 143, run.error
            whole = CheckpointStore(steps).newest()
            assert whole is not None
            before = whole.step
            run = commands.Command(folder, "resume=out")
            found["restart to first new step"].append(waited(lambda before=before: newest(steps) > before))
        run.process.kill()
        run.ended()
    print(json.dumps({name: [round(seconds, 2) for seconds in sorted(all_of)] for name, all_of in found.items()}))


if __name__ == "__main__":
    main()
