"""A sweep's folder as its jobs leave it, without running them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.cli.sweep.jobs import ERROR_FILE


def write_job(folder: Path, words: Sequence[str], result: float | str | None, **metrics: float) -> None:
    """A job with a number as its result, or why it failed, or nothing at all where it was killed."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(word)}\n" for word in words) or "[]\n")
    if isinstance(result, str):
        (folder / ERROR_FILE).write_text(result)
    elif result is not None:
        content: dict[str, Any] = {"objective": result, "metrics": {"kl": 0.5, **metrics}, "seconds": {"sft": 1.0, "ppo": 2.0}}
        (folder / "result.json").write_text(json.dumps(content))


@pytest.fixture
def job() -> Callable[..., None]:
    return write_job


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Two choices of an advantage and three seeds of each; the fourth job failed, the sixth was killed before it wrote anything."""
    results: list[float | str | None] = [0.1, 0.2, 0.3, "RuntimeError: out of [memory]", 0.7, None]
    words = [[f"+advantage={name}", f"seed={seed}", "a.b=[1,2]"] for name in ("gae", "rloo") for seed in (1, 2, 3)]
    for number, (asked, result) in enumerate(zip(words, results, strict=True)):
        write_job(tmp_path / str(number), asked, result, **{"long/name": number / 2})
    (tmp_path / "no_job").mkdir()
    return tmp_path
