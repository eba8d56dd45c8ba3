"""Two processes learn what one learns, whether each holds the whole model (ddp) or its share (fsdp2)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
STRATEGIES = {
    "ddp": ["trainer=ddp", "trainer.accelerator=cpu"],
    "fsdp2": ["trainer=fsdp2", "trainer.accelerator=cpu"],
    "fsdp2, frozen models too": ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.shard_frozen=true"],
}
RUNNING = ["rollout_shaping=[normalise_score,kl,whiten_rewards]", "policy_kl_control=adaptive", "ppo.target_kl=1e-6", "ppo.epochs=3"]
GRPO = ["advantage=grpo", "policy_reduction=sequence_mean", "policy_penalty=[kl]", "rollout_shaping=[missing_eos]"]
WARM = ["policy_critic=separate", "policy_critic.warmup=1", "ppo.ptx_coef=0.3"]
ORDINAL = ["reward_loss=[bradley_terry,plackett_luce,ordinal]", "reward.learning_rate=1e-4"]
CASES = {
    # A small rate: where a gradient is nearly 0, Adam makes much of its rounding.
    "sft": ("sft", ["sft.batch_size=5", "sft.learning_rate=1e-4"], ["ddp", "fsdp2"]),
    "reward": ("reward", ["reward_loss=[bradley_terry,plackett_luce,gaussian_rating]", "reward.learning_rate=1e-4"], ["ddp", "fsdp2"]),
    "reward, thresholds of ratings learned": (
        "reward",
        ["reward_loss=[bradley_terry,plackett_luce,ordinal]", "reward.learning_rate=1e-4"],
        ["ddp", "fsdp2"],
    ),
    "reward, adapters": ("reward", ["reward_tuning=lora", "reward_tuning.dropout=0"], ["fsdp2"]),
    "reward, heads alone": ("reward", ["reward_tuning=frozen", "reward_head=ensemble"], ["fsdp2"]),
    "dpo": ("preference", ["preference.batch_size=7"], ["ddp", "fsdp2"]),
    "kto": ("preference", ["preference_loss=kto", "preference_loss.from_pairs=true", "preference.batch_size=7"], ["fsdp2"]),
    "ppo, one trunk, running statistics, a stop of the epochs": ("ppo", RUNNING, ["ddp", "fsdp2", "fsdp2, frozen models too"]),
    "ppo, two trunks, in parts": ("ppo", ["policy_critic=separate", "ppo.micro_batch_size=1", "ppo.num_minibatches=3"], ["ddp", "fsdp2"]),
    "ppo, critic first, demonstrations": ("ppo", WARM, ["ddp", "fsdp2, frozen models too"]),
    "ppo, adapters": ("ppo", ["policy_tuning=lora"], ["ddp", "fsdp2"]),
    "grpo": ("ppo", GRPO, ["ddp", "fsdp2"]),
    "rounds": ("rounds", ["sft.learning_rate=1e-4", "reward.learning_rate=1e-4"], ["ddp", "fsdp2"]),
}
KEPT = ["checkpoint.every=1", "checkpoint.keep=9", "checkpoint.keep_finished=true"]
PAIRS = [(case, strategy) for case, (_, _, strategies) in CASES.items() for strategy in strategies]


def place(case: str, strategy: str) -> str:
    return f"{case} {strategy}".replace(",", "").replace(" ", "_")


def together(commands: list[tuple[list[str], Path]], beside: Path) -> None:
    """Carry commands out by two processes."""
    (beside / "commands.json").write_text(json.dumps([(words, str(folder)) for words, folder in commands]))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(HERE / "several_processes.py")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, str(beside / "commands.json")], capture_output=True, text=True, timeout=500, env=env, check=False
    )  # fmt: skip
    assert done.returncode == 0, [file.read_text() for file in beside.glob("error_*.txt")] or done.stderr


@pytest.fixture(scope="module")
def runs(world, command, tmp_path_factory) -> Path:
    """Every case by one process, and by two under each of its strategies."""
    root = tmp_path_factory.mktemp("strategies")
    commands = []
    for case, (stage, words, strategies) in CASES.items():
        asked = getattr(world, stage)(*words, "logger=csv", *KEPT)
        outcome = command(*asked, folder=root / place(case, "one"))
        assert outcome.code == 0, outcome.error
        commands += [([*asked, *STRATEGIES[name], "trainer.devices=2"], root / place(case, name)) for name in strategies]
    together(commands, root)
    return root


@pytest.mark.parametrize(("case", "strategy"), PAIRS)
def test_two_processes_learn_what_one_learns(runs, learned, case, strategy):
    """The same texts, batches and metrics, and weights that differ by rounding alone."""
    (one, said), (two, again) = learned(runs / place(case, "one")), learned(runs / place(case, strategy))
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6
    assert len(said) == len(again) >= 2
    assert said[0] != said[-1], "nothing was learned"
    for mine, theirs in zip(said, again, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-4)


def test_a_run_of_two_processes_goes_on_exactly(runs, learned, tmp_path):
    """From its first checkpoint, bitwise: the shares of weights and of Adam's states, the KL coefficient, running statistics."""
    cases = ["sft", "reward", "dpo", "ppo, one trunk, running statistics, a stop of the epochs", "grpo"]
    resumed = []
    for case in (place(case, strategy) for case in cases for strategy in ("ddp", "fsdp2")):
        shutil.copytree(runs / case, tmp_path / case)
        for left in [tmp_path / case / "result.json", *(tmp_path / case).glob("**/*.safetensors")]:
            left.unlink()
        steps = list((tmp_path / case / "checkpoints").glob("*/step_*"))
        assert len(steps) >= 2
        for step in steps:
            if step.name != "step_1":
                shutil.rmtree(step)
        resumed.append(([f"resume={tmp_path / case}"], tmp_path / case))
    together(resumed, tmp_path)
    for _, folder in resumed:
        (whole, said), (again, said_again) = learned(runs / folder.name), learned(folder)
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[name], again[name]) for name in whole), folder.name
        assert said == said_again, folder.name


SILENT = '''
"""The policy's own responses, but that the second process has none that says anything."""
import dataclasses
import os
import torch
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler.native import native


@register("rollout_sampler", "silent")
@torch.no_grad()
def silent(language_model, prompts, *, max_new_tokens: int = 8):
    """Empty responses on the second process."""
    rollout = native(language_model, prompts, max_new_tokens=max_new_tokens)
    if os.environ.get("RANK") != "1":
        return rollout
    first = torch.zeros_like(rollout.response_mask)
    first[:, 0] = 1
    ids = torch.full_like(rollout.response_ids, language_model.eos_ids[0])
    ends = torch.ones_like(rollout.has_eos)
    log_probs = torch.full_like(rollout.sampled_log_probs, -3.0) * first
    return dataclasses.replace(
        rollout, responses=[""] * len(rollout), response_ids=ids, response_mask=first, has_eos=ends, sampled_log_probs=log_probs
    )
'''


def test_a_process_whose_responses_are_all_empty_keeps_step(world, learned, tmp_path, monkeypatch):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "silent.py").write_text(SILENT)
    monkeypatch.setenv("RLHF_PLUGINS", str(tmp_path / "plugins"))
    words = [word for word in world.ppo("logger=csv", "ppo.self_checks=false") if not word.startswith("rollout_sampler")]
    words += ["rollout_sampler=silent", "ppo.epochs=2"]
    together([([*words, *STRATEGIES[name], "trainer.devices=2"], tmp_path / name) for name in ("ddp", "fsdp2")], tmp_path)
    for name in ("ddp", "fsdp2"):
        weights, metrics = learned(tmp_path / name)
        assert len(metrics) == 2
        assert all(bool(value.isfinite().all()) for value in weights.values())
