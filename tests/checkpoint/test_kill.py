"""A short run of the kill test; the long one is `python tests/checkpoint/kill.py --kills 200`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.fork_server import run

KINDS = ["train_sft", "train_ppo", "sft", "ppo"]


def killed(folder: Path, *words: str) -> dict[str, int]:
    """Counts of a series of kills."""
    command = [sys.executable, str(Path(__file__).with_name("kill.py")), "--scratch", str(folder), *words]
    done = run(command, timeout=3600, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts["trainings"] == counts["trainings that left bitwise the same"] >= 2
    assert counts["runs"] == counts["runs with the listing of an undisturbed one"] == counts["runs with bitwise the same contents"] >= 2
    return counts


@pytest.mark.slow
def test_killed_trainings_and_commands_leave_what_uninterrupted_ones_leave(tmp_path):
    assert killed(tmp_path, "--kills", "5", "--kinds", *KINDS)["kills"] >= 5


@pytest.mark.full
def test_two_hundred_kills_of_every_kind(tmp_path):
    assert killed(tmp_path, "--kills", "200")["kills"] >= 200
