"""A short run of the kill test; the long one is `python tests/checkpoint/kill.py --kills 200`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KINDS = ["train_sft", "train_ppo", "sft", "reward", "ppo", "inspect"]


@pytest.mark.slow
def test_killed_trainings_and_commands_leave_what_uninterrupted_ones_leave(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    script = str(Path(__file__).with_name("kill.py"))
    command = [sys.executable, script, "--kills", "7", "--scratch", str(tmp_path), "--kinds", *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["trainings"] == counts["trainings that left bitwise the same"] >= 2
    assert counts["runs"] == counts["runs with the listing of an undisturbed one"] == counts["runs with bitwise the same contents"] >= 2
    assert counts["kills"] >= 7
