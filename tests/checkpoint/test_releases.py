"""Checkpoints of earlier releases are gone on with; one of a version to come is refused with what to do."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lightning.checkpoint import manifest
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.errors import DataError

HERE = Path(__file__).resolve().parent


def script() -> Any:
    spec = importlib.util.spec_from_file_location("checkpoint_release", HERE / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("release", sorted(path.name for path in (HERE / "releases").iterdir()))
def test_a_release_s_checkpoint_is_gone_on_with_to_the_same_losses(tmp_path, release):
    """Bit by bit where torch and the processor are those that it was written with; others round differently."""
    written = script()
    expected = json.loads((HERE / "releases" / release / written.EXPECTED).read_text())
    shutil.copytree(HERE / "releases" / release / f"step_{written.STEP}", tmp_path / f"step_{written.STEP}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        history = written.trained(tmp_path)
        alike = all(expected[name] == value for name, value in written.machine().items())
    finally:
        torch.set_num_threads(threads)
    assert len(history) == len(expected["history"]) == 6
    for step, (before, now) in enumerate(zip(expected["history"], history, strict=True), start=1):
        for name, value in before.items():
            tolerance = {"abs": 0.0, "rel": 0.0} if alike or step <= written.STEP else {"abs": 1e-5, "rel": 1e-5}
            assert now[name] == pytest.approx(value, **tolerance), (step, name)


def test_a_checkpoint_of_a_version_to_come_is_refused_with_what_to_do(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.prepare()
    store.save(1, lambda folder: (folder / "file").write_bytes(b"1"))
    monkeypatch.setattr(manifest, "FORMAT", 7)
    store.save(2, lambda folder: (folder / "file").write_bytes(b"2"))
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"step_2/manifest.json is of format 7, .* format 1: .*pip install -U rlhf-lightning"):
        CheckpointStore(tmp_path).newest()
