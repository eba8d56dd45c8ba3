"""Scorers that go wrong in a real run: one that fails on one process, one that never returns, one that meddles, a program that crashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.fork_server import run as run_forked

ROOT = Path(__file__).resolve().parents[3]
HEADING = "import os, random, re, sys, time\nimport numpy\nimport torch\nfrom rlhf_lightning.registry import register\n\n\n"
CALM = "return [float(len(text)) for text in rollout.responses]"


@pytest.fixture
def faulty(world, tmp_path):
    """Runs stage=ppo with a scorer of the given body in a process of its own."""

    def run(body: str, *words: str, folder: str = "out", timeout: float = 150) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plugins").mkdir(exist_ok=True)
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        scorer = f'@register("rollout_scorer", "faulty")\ndef faulty(rollout):\n    """A scorer that goes wrong."""\n{lines}'
        (tmp_path / "plugins" / "faulty.py").write_text(HEADING + scorer)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        rest = [word for word in world.ppo() if not word.startswith("rollout_scorer")]
        command = [sys.executable, str(ROOT / "train.py"), *rest, "rollout_scorer=faulty", f"hydra.run.dir={folder}", *words]
        return run_forked(command, cwd=tmp_path, timeout=timeout, env=env, spares=1)

    return run


@pytest.mark.slow
def test_a_scorer_that_raises_on_one_process_stops_both(faulty):
    body = (
        f"faulty.calls = getattr(faulty, 'calls', 0) + 1\nif faulty.calls > 2 and os.environ.get('LOCAL_RANK') == '1':\n    1 / 0\n{CALM}"
    )
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "ppo.self_checks=false", "ppo.updates=4"]
    done = faulty(body, *words, timeout=100)
    assert done.returncode != 0
    assert "scorer faulty raised ZeroDivisionError: division by zero" in done.stderr
    assert "1 / 0" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("time.sleep(1000)", id="asleep", marks=pytest.mark.full),
        pytest.param("re.match('(a+)+$', 'a' * 60 + 'b')", id="in C"),
    ],
)
def test_a_scorer_that_never_returns_is_ended_and_its_stack_left(faulty, tmp_path, hang):
    body = f"faulty.calls = getattr(faulty, 'calls', 0) + 1\nif faulty.calls > 2:\n    {hang}\n{CALM}"
    done = faulty(body, "checkpoint.stalled_after=0.1", "ppo.self_checks=false")
    assert done.returncode == 1
    stack = (tmp_path / "out" / "stalled_0.txt").read_text()
    assert "in faulty" in stack
    assert "in training_step" in stack


MEDDLING = """torch.manual_seed(0)
numpy.random.seed(0)
random.seed(0)
torch.set_default_dtype(torch.float64)
os.chdir('/')
print('noise ' * 10_000)
answer = [float(len(text)) for text in rollout.responses]
rollout.responses.clear()
rollout.response_mask.zero_()
return answer"""


@pytest.mark.slow
def test_a_scorer_that_meddles_changes_no_bit_of_what_is_learned(faulty, tmp_path):
    for folder, body in (("calm", CALM), ("meddling", MEDDLING)):
        done = faulty(body, folder=folder)
        assert done.returncode == 0, done.stderr
    calm, meddling = (load_file(tmp_path / folder / "policy" / "model.safetensors") for folder in ("calm", "meddling"))
    assert all(calm[name].equal(meddling[name]) for name in calm)
    metrics = [json.loads((tmp_path / folder / "result.json").read_text())["metrics"] for folder in ("calm", "meddling")]
    assert metrics[0] == metrics[1]


def test_a_program_that_crashes_now_and_then_trains(command, world, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import json, sys\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    if number == 9:\n        sys.exit('enough')\n"
        "    print(len(json.loads(line)['response']))\n"
    )
    rest = [word for word in world.ppo() if not word.startswith("rollout_scorer")]
    program = f"rollout_scorer.program.command='{sys.executable} -S {script}'"
    done = command(*rest, "rollout_scorer=program", program, "ppo.max_unscorable=0.5", "ppo.updates=3")
    assert done.code == 0, done.error
    assert not list(done.folder.glob("stalled_*")), "the watchdog's file is for a training that stood still"
    assert "scorer program couldn't score 1 of 8 responses (NaN or None)" in done.out
    stopped = command(*rest, "rollout_scorer=program", f"rollout_scorer.program.command='{sys.executable} -c 1'", "ppo.updates=3")
    assert stopped.code == 2
    assert "-c 1' ended with code 0 before its first answer" in stopped.error
