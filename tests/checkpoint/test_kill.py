"""A short run of the kill test; the long one is `python tests/checkpoint/kill.py --kills 200`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.fork_server import run

KINDS = ["train_sft", "train_ppo", "sft", "reward", "ppo", "inspect"]


@pytest.mark.slow
def test_killed_trainings_and_commands_leave_what_uninterrupted_ones_leave(tmp_path):
    script = str(Path(__file__).with_name("kill.py"))
    command = [sys.executable, script, "--kills", "7", "--scratch", str(tmp_path), "--kinds", *KINDS]
    done = run(command, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["trainings"] == counts["trainings that left bitwise the same"] >= 2
    assert counts["runs"] == counts["runs with the listing of an undisturbed one"] == counts["runs with bitwise the same contents"] >= 2
    assert counts["kills"] >= 7
