"""Commands from Python: results instead of output, exceptions instead of exits, and a process left as it was."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

import rlhf_lightning
from rlhf_lightning import generate, load_policy, run
from rlhf_lightning.errors import UserError


def state() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    logs = [logging.root.level, list(logging.root.handlers), logging.getLogRecordFactory()]
    return [list(sys.argv), dict(os.environ), os.getcwd(), handlers, GlobalHydra.instance().hydra, logs]


def test_a_run_returns_its_results_twice_in_a_row_under_a_running_event_loop(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()

    async def cell() -> list[Any]:
        return [run(world.sft("logger=none")) for _ in range(2)]

    first, second = asyncio.run(cell())
    assert state() == before
    assert first.folder != second.folder
    assert (first.objective, first.metrics) == (second.objective, second.metrics)
    assert first.history["sft"][-1]["sft/loss"] > 0
    texts = generate(load_policy(first.folders["policy"]), ["a", "b"], max_new_tokens=3)
    assert len(texts) == 2
    again = run([f"resume={first.folder}"])
    assert (again.folder, again.objective, again.history) == (first.folder, first.objective, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stage=sftt"], "did you mean 'sft'"),
        (["sft.epochs=-1"], "sft.epochs=-1"),
        (["stage=ppo", "rollout_scorer=null"], "rollout_scorer"),
        (["-m", "seed=1,2"], "in a loop"),
        (["resume=nowhere"], "nowhere"),
        (["--cfg", "job"], "nothing was run"),
    ],
)
def test_a_wrong_command_raises_and_leaves_the_process_as_it_was(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    with pytest.raises(UserError, match=message):
        run(words)
    assert state() == before


def test_the_package_is_light_and_offers_every_name():
    code = "import rlhf_lightning, sys; print([m for m in ('torch', 'hydra', 'lightning', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.stdout == "[]\n", done.stderr
    assert set(dir(rlhf_lightning)) == set(rlhf_lightning.__all__)
    for name in rlhf_lightning.__all__:
        assert getattr(rlhf_lightning, name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = rlhf_lightning.nothing_like_it
