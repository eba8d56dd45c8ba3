"""The program as a process: Ctrl-C at any moment and closed pipes end it without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fork_server import ForkedPopen

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "train.py")]
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_a_ctrl_c_while_it_loads_ends_it_quietly(seconds):
    process = subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert error in ("", "stopped by SIGINT\n")
    assert process.returncode == 0 or error


@pytest.mark.parametrize("words", [["--help"], ["components"], ["--cfg", "job"], ["seed=-1"]])
def test_a_closed_pipe_ends_it_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    both = subprocess.STDOUT if words == ["seed=-1"] else subprocess.PIPE
    process = ForkedPopen([*COMMAND, *words], stdout=writing, stderr=both, env=ENV, text=True)
    os.close(writing)
    _, error = process.communicate(timeout=120)
    assert not error
    assert process.returncode in (141, 2, 1)


def test_a_training_goes_on_where_nobody_reads_it(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    file = tmp_path / "p.jsonl"
    file.write_text("".join(f'{{"prompt": "q{i}", "chosen": "good {i}", "rejected": "b"}}\n' for i in range(9)))
    words = ["stage=inspect", "logger=none", "feedback_source=jsonl", "feedback_format=[pairwise]", f"feedback_source.jsonl.path={file}"]
    process = ForkedPopen([*COMMAND, *words, f"hydra.run.dir={tmp_path / 'run'}"], stdout=writing, stderr=subprocess.PIPE, env=ENV)
    os.close(writing)
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, b"")
    assert (tmp_path / "run" / "result.json").is_file()
