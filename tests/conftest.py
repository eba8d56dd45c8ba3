"""The fixture modules, and the order in which tests are handed to processes: the longest files first, so that none is the tail."""

from __future__ import annotations

import gc
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from rlhf_lightning.config import yaml_check

yaml_check.register()  # as commands do: tests compose configurations too
torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other, and tests run in several processes
pytest_plugins = [f"tests.fixtures.{name}" for name in ("records", "goldens", "models", "commands", "registry", "world", "postgresql")]

TESTS = Path(__file__).parent
FIRST = (
    "test_strategies.py", "test_installed.py", "checkpoint/test_commands.py", "test_docs.py", "checkpoint/test_kill.py",
    "test_real_processes.py", "test_clusters.py", "cli/sweep/test_sweeps.py", "stage/test_plan.py", "runtime/test_output_folder.py",
    "test_options.py", "stage/test_reward.py", "reward/test_components.py", "cli/test_error_messages.py",
)  # fmt: skip
"""Files that take longest, in this order."""
PARTS = {"test_options.py": 4, "cli/test_error_messages.py": 3, "stage/test_reward.py": 3, "reward/test_components.py": 3}
"""Parts of a long file whose tests share no fixture of their module; the tests of other files stay in one process."""


class FileScheduling(LoadScopeScheduling):
    """Hands out a file, or a part of one, at a time: a fixture of a module is made once.

    `--dist loadgroup` does the same by marks, but pytest-xdist 3.8 writes them where pytest 9.2 doesn't read them.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return f"{file}:{zlib.crc32(nodeid.encode()) % PARTS.get(file.removeprefix('tests/'), 1)}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = [item.path.relative_to(TESTS).as_posix() for item in items]
    ranks = {file: FIRST.index(file) if file in FIRST else len(FIRST) for file in files}
    items[:] = [item for _, item in sorted(zip(files, items, strict=True), key=lambda pair: ranks[pair[0]])]


def pytest_collection_finish() -> None:
    """Spare the collector thousands of tests and modules, which stay to the end."""
    gc.collect()
    gc.freeze()
