"""`python tests/checkpoint/release.py 0.1`: writes a checkpoint of this version, for those to come, into releases/0.1.

Run it once for each release, and commit the folder; test_releases.py goes on from every one.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

from rlhf_lightning.checkpoint.fit import fit

HERE = Path(__file__).resolve().parent
RELEASES = HERE / "releases"
KIND, STEP = "sft", 3
EXPECTED = "expected.json"


def load_trainings() -> Any:
    spec = importlib.util.spec_from_file_location("checkpoint_trainings", HERE / "trainings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> dict[str, str]:
    """What the last bit of a number depends on."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    )
    return {"torch": torch.__version__, "cpu": names[0] if names else platform.processor(), "threads": str(torch.get_num_threads())}


def trained(folder: Path) -> list[dict[str, float]]:
    """The metrics of every step of the training, from the newest checkpoint in the folder where there is one."""
    trainings = load_trainings()
    L.seed_everything(7, verbose=False)
    module, data, epochs = trainings.KINDS[KIND]()
    fit(trainings.trainer_of(epochs), module, data, folder=folder, every=1, keep=99)
    history: list[dict[str, float]] = module.history
    return history


def main() -> None:
    target = RELEASES / sys.argv[1]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        history = trained(Path(top) / "whole")
        step = f"step_{STEP}"
        shutil.copytree(Path(top) / "whole" / step, target / step)
    (target / EXPECTED).write_text(json.dumps({**machine(), "history": history}, indent=1) + "\n")


if __name__ == "__main__":
    main()
