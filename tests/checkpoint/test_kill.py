"""A short run of the kill test; the long one is `python tests/checkpoint/kill.py --kills 200`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_five_killed_trainings_leave_what_uninterrupted_ones_leave():
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(Path(__file__).with_name("kill.py")), "--kills", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["trainings"] == counts["trainings that left bitwise the same"] == 5
    assert counts["kills"] >= 5
