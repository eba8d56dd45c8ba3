"""The tiny trainings of `trainings.py`, and what an uninterrupted one leaves."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from rlhf_lightning.checkpoint.manifest import read

SCRIPT = Path(__file__).with_name("trainings.py")


@pytest.fixture(scope="session")
def trainings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checkpoint_trainings", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Uninterrupted:
    """A training from start to end with a checkpoint of every step.

    Attributes:
        left: hashes of what it left.
    """

    folder: Path
    left: dict[str, str]

    def stopped_after(self, step: int, folder: Path) -> Path:
        """A copy of the folder as it was after a step."""
        shutil.copytree(self.folder, folder)
        (folder / "index.json").unlink()
        for path in folder.iterdir():
            if path.is_dir() and read(path).step > step:
                shutil.rmtree(path)
        return folder


@pytest.fixture(scope="session")
def uninterrupted(trainings: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Uninterrupted]:
    @functools.cache
    def run(kind: str) -> Uninterrupted:
        folder = tmp_path_factory.mktemp(kind) / "checkpoints"
        return Uninterrupted(folder, trainings.trained(kind, folder))

    return run
