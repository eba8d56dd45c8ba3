"""Progress without a terminal: a few lines with the newest figures, and nothing from other processes."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlhf_lightning.progress import LINES, StageProgress


def lines_of(total: int, is_first: bool = True) -> list[str]:
    screen = io.StringIO()
    progress = StageProgress("ppo", total, {"kl": "KL", "absent": "x"}, Console(file=screen, width=120))
    trainer, module = SimpleNamespace(is_global_zero=is_first), SimpleNamespace(history=[])
    progress.on_train_start(trainer, module)
    for step in range(total):
        module.history.append({"kl": step / 8})
        progress.on_train_batch_end(trainer, module, None, None, step)
    progress.on_train_end(trainer, module)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("total", [1, 3, 100])
def test_a_few_lines_the_last_of_them_at_the_end(total):
    lines = lines_of(total)
    assert 1 <= len(lines) <= LINES + 1
    assert lines[-1].split()[:2] == ["ppo", f"{total}/{total}"]
    assert f"KL {(total - 1) / 8:.3g}" in lines[-1]
    assert "x" not in lines[-1]


def test_other_processes_are_silent():
    assert lines_of(10, is_first=False) == []


def test_an_error_before_the_start_is_not_hidden():
    """Lightning calls on_exception also where the training never began."""
    StageProgress("ppo", 2, {}).on_exception(SimpleNamespace(), SimpleNamespace(), ValueError())
