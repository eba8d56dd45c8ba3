"""What the disk refuses is told as such, by whichever library it was written."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlhf_lightning.checkpoint.durable import disk_error
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.errors import UserError


@pytest.fixture
def small_files() -> Iterator[None]:
    """The limit on a file's size is the real thing: a write that the system cuts off."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: write_atomic(path, "x" * 20_000),
    "torch": lambda path: torch.save(torch.zeros(10_000), path),
    "safetensors": lambda path: save_file({"weight": torch.zeros(10_000)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_is_cut_off_says_how_to_go_on(tmp_path, small_files, writer):
    with pytest.raises(Exception) as cause:  # noqa: PT011
        WRITERS[writer](tmp_path / "file")
    told = disk_error(cause.value, tmp_path)
    assert told is not None
    assert f"continue with resume={tmp_path}" in str(told)
    assert writer != "text" or list(tmp_path.iterdir()) == []


def test_other_errors_are_what_they_are(tmp_path):
    assert disk_error(RuntimeError("a bug"), tmp_path) is None
    assert disk_error(UserError("No space left on device, told already"), tmp_path) is None
