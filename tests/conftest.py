"""The fixture modules, and the order in which tests are handed to processes: the longest groups first, so that none is the tail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other, and tests run in several processes
pytest_plugins = [f"tests.fixtures.{name}" for name in ("records", "goldens", "models", "commands", "registry", "world")]

TESTS = Path(__file__).parent
FIRST = (
    "test_installed.py", "test_strategies.py", "checkpoint/test_commands.py", "checkpoint/test_kill.py", "test_docs.py",
    "test_real_processes.py", "test_clusters.py", "checkpoint/test_graceful_stop.py", "cli/sweep/test_sweeps.py", "stage/test_plan.py",
    "cli/test_error_messages.py", "test_options.py",
)  # fmt: skip
"""Files that take longest, in this order."""
SPLIT = {"test_options.py": 20, "cli/test_error_messages.py": 30, "test_folder_names.py": 20, "config/test_yaml_check.py": 20}
"""Tests to a group of a file whose tests share no fixture of their module; the tests of other files stay together."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = [item.path.relative_to(TESTS).as_posix() for item in items]
    ranks = {file: FIRST.index(file) if file in FIRST else len(FIRST) for file in files}
    items[:] = [item for _, item in sorted(zip(files, items, strict=True), key=lambda pair: ranks[pair[0]])]
    counts: dict[str, int] = {}
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        counts[file] = counts.get(file, -1) + 1
        item.add_marker(pytest.mark.xdist_group(f"{file}:{counts[file] // SPLIT[file]}" if file in SPLIT else file))
