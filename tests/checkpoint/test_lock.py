"""Two trainers never share a folder, and a dead one doesn't keep the next out."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.errors import ConfigError
from tests.fork_server import ForkedPopen

HOLDS = "import sys, time; from pathlib import Path; from rlhf_lightning.checkpoint.lock import lock_folder\nwith lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"  # noqa: E501


def holder(folder: Path) -> subprocess.Popen[str]:
    process = ForkedPopen([sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_trainer_is_refused_with_pid_and_host_until_the_first_is_dead(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid} on {socket.gethostname()} works there"), lock_folder(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}


def test_the_lock_is_free_after_the_block_and_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="a bug"), lock_folder(tmp_path / "new" / "folder"):
            raise ValueError("a bug")


def test_one_process_can_not_hold_it_twice(tmp_path):
    with lock_folder(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()} on"), lock_folder(tmp_path):
        pass


def test_what_a_broken_file_says_is_no_matter(tmp_path):
    (tmp_path / "lock.json").write_text("{")
    with lock_folder(tmp_path):
        (tmp_path / "lock.json").write_text("{")
        with pytest.raises(ConfigError, match="another process works there"), lock_folder(tmp_path):
            pass
