"""The watchdog ends a process that stands still, and leaves one alone that doesn't."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rlhf_lightning.checkpoint.watchdog import Watchdog
from tests.fork_server import run

STILL = """
import sys, time
from pathlib import Path
from rlhf_lightning.checkpoint.watchdog import Watchdog

def standing_still():
    time.sleep(60)

dog = Watchdog(Path(sys.argv[1]), 2 / 60)
dog.setup(None, None, "fit")
for _ in range(3):
    time.sleep(0.8)
    dog.on_train_batch_end()
print("moved", flush=True)
standing_still()
"""


def test_it_waits_from_batch_to_batch_and_then_ends_the_process_with_its_stacks(tmp_path):
    (tmp_path / "stalled_0.txt").write_text("what an earlier process left")
    done = run([sys.executable, "-c", STILL, str(tmp_path / "stalled_0.txt")], timeout=100)
    assert (done.returncode, done.stdout) == (1, "moved\n"), done.stderr
    assert "in standing_still" in (tmp_path / "stalled_0_again.txt").read_text()
    assert (tmp_path / "stalled_0.txt").read_text() == "what an earlier process left"


def test_it_leaves_nothing_where_a_training_ends_or_fails(tmp_path):
    nothing: Any = None
    for ends in ("teardown", "on_exception"):
        dog = Watchdog(tmp_path / "stalled_0.txt", 0.2 / 60)
        dog.setup(nothing, nothing, "fit")
        assert (tmp_path / "stalled_0.txt").exists()
        getattr(dog, ends)(nothing, nothing, nothing)
        assert not list(tmp_path.iterdir())
        dog.on_train_batch_end()
        time.sleep(0.4)


def test_a_folder_that_can_not_be_written_is_not_its_business(tmp_path):
    (tmp_path / "file").write_text("")
    dog = Watchdog(Path(tmp_path / "file" / "stalled_0.txt"), 1.0)
    nothing: Any = None
    dog.setup(nothing, nothing, "fit")
    dog.teardown(nothing, nothing, "fit")
