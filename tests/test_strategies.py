"""Two processes learn what one learns, whether each holds the whole model (ddp) or its share (fsdp2)."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.fork_server import run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
STRATEGIES = {
    "ddp": ["trainer=ddp", "trainer.accelerator=cpu"],
    "fsdp2": ["trainer=fsdp2", "trainer.accelerator=cpu"],
    "fsdp2, frozen models too": ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.shard_frozen=true"],
}
SGD = ["optimizer=sgd", "optimizer.momentum=0.9", "schedule=cosine", "schedule.warmup=1", "ppo.critic_learning_rate=1e-3"]
AVERAGED = ["callback=[ema,lr_monitor]"]
LION = ["optimizer=lion", "ppo.learning_rate=1e-6", "schedule=linear"]
MUON = ["optimizer=muon", "preference.learning_rate=1e-5", "schedule=constant", "callback=[ema]"]
ADAFACTOR = ["optimizer=adafactor", "optimizer.no_decay=[biases,norms]", "schedule=polynomial"]
"""Each optimizer, schedule and callback at work in one of the cases; a sign and an orthogonal matrix make much of rounding, too."""
RUNNING = ["rollout_shaping=[normalise_score,whiten_rewards]", "policy_kl_control=adaptive", "ppo.target_kl=1e-6", "ppo.epochs=3"]
GRPO = ["advantage=grpo", "policy_reduction=sequence_mean", "policy_kl=loss"]
SCORERS = [
    "rollout_scorer=[reward_model,length,reference]", "rollout_scorer.length.longest=4", "rollout_scorer.length.weight=0.3",
    "rollout_scorer.reference.column=response", "rollout_scorer.reference.weight=5", "rollout_shaping=[gdpo,missing_eos]",
]  # fmt: skip
WARM = ["policy_critic=separate", "policy_critic.warmup=1", "ppo.ptx_coef=0.3"]
PARTS = ["policy_critic=separate", "ppo.micro_batch_size=1", "ppo.num_minibatches=3"]
ORDINAL = ["reward_loss=[bradley_terry,plackett_luce,ordinal]", "reward.learning_rate=1e-4"]
LORA = ["reward_tuning=lora", "reward_tuning.dropout=0"]
KTO = ["preference_loss=kto", "preference_loss.from_pairs=true", "preference.batch_size=7"]
EVALUATED = ["evaluation.every=1", "evaluation.batch_size=3"]
BEST = [*EVALUATED, "checkpoint.monitor=evaluation/loss"]
ROUNDS = ["sft.batch_size=5", "sft.learning_rate=1e-4", "reward.learning_rate=1e-4", "backbone.activation_checkpointing=true"]
# A small rate: where a gradient is nearly 0, Adam makes much of its rounding.
CASES = {
    "rounds: sft, rewards of every kind, ppo": ("rounds", ROUNDS, ["ddp", "fsdp2"]),
    "reward, thresholds of ratings learned, adapters": ("reward", [*ORDINAL, *LORA, *BEST, "optimizer=adam"], ["ddp", "fsdp2"]),
    "reward, heads alone": ("reward", ["reward_tuning=frozen", "reward_head=ensemble"], ["fsdp2"]),
    "dpo": ("preference", ["preference.batch_size=7", *ADAFACTOR], ["ddp"]),
    "kto": ("preference", [*KTO, *MUON, *EVALUATED], ["fsdp2"]),
    "ppo, one trunk, running statistics, a stop of the epochs": (
        "ppo",
        [*RUNNING, *SGD, *AVERAGED, *EVALUATED],
        ["ddp", "fsdp2, frozen models too"],
    ),
    "ppo, two trunks, in parts, critic first, demonstrations": ("ppo", [*PARTS, *WARM[1:]], ["ddp", "fsdp2"]),
    "grpo, adapters, several scorers": ("ppo", [*GRPO, *SCORERS, *LION, "policy_tuning=lora", *EVALUATED], ["ddp", "fsdp2"]),
}
"""Every pair of a feature and a strategy, several features to a case."""
FULL = {
    "sft": ("sft", ["sft.batch_size=5", "sft.learning_rate=1e-4"], ["ddp", "fsdp2"]),
    "reward": ("reward", ["reward_loss=[bradley_terry,plackett_luce,gaussian_rating]", "reward.learning_rate=1e-4"], ["ddp", "fsdp2"]),
    "reward, thresholds": ("reward", ORDINAL, ["ddp", "fsdp2"]),
    "reward, adapters": ("reward", LORA, ["fsdp2"]),
    "dpo, sharded": ("preference", ["preference.batch_size=7"], ["fsdp2"]),
    "ppo, running statistics": ("ppo", RUNNING, ["fsdp2"]),
    "ppo, two trunks, in parts": ("ppo", PARTS, ["ddp", "fsdp2"]),
    "ppo, critic first, demonstrations": ("ppo", WARM, ["ddp", "fsdp2, frozen models too"]),
    "ppo, adapters": ("ppo", ["policy_tuning=lora"], ["ddp", "fsdp2"]),
    "grpo": ("ppo", GRPO, ["ddp", "fsdp2"]),
}
"""Each feature alone."""
RESUMED = [
    ("reward, thresholds of ratings learned, adapters", "ddp"),
    ("kto", "fsdp2"),
    ("ppo, one trunk, running statistics, a stop of the epochs", "fsdp2, frozen models too"),
    ("grpo, adapters, several scorers", "ddp"),
    ("ppo, two trunks, in parts, critic first, demonstrations", "fsdp2"),
]
KEPT = ["checkpoint.every=1", "checkpoint.keep=9", "checkpoint.keep_finished=true"]


def pairs(cases: dict[str, tuple[str, list[str], list[str]]]) -> list[tuple[str, str]]:
    return [(case, strategy) for case, (_, _, strategies) in cases.items() for strategy in strategies]


def folder_name(case: str, strategy: str) -> str:
    return re.sub(r"\W+", "_", f"{case} {strategy}")


def together(commands: list[tuple[list[str], Path]], beside: Path) -> None:
    """Carry commands out by two processes."""
    (beside / "commands.json").write_text(json.dumps([(words, str(folder)) for words, folder in commands]))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(HERE / "several_processes.py")]
    done = run([sys.executable, *launch, str(beside / "commands.json")], timeout=500, spares=2)
    assert done.returncode == 0, [file.read_text() for file in beside.glob("error_*.txt")] or done.stderr


def run_cases(cases, root: Path, world, command) -> Path:
    """Every case by one process, and by two under each of its strategies."""
    commands = []
    for case, (stage, words, strategies) in cases.items():
        overrides = getattr(world, stage)(*words, "logger=csv", *KEPT)
        outcome = command(*overrides, folder=root / folder_name(case, "one"))
        assert outcome.code == 0, outcome.error
        commands += [([*overrides, *STRATEGIES[name], "trainer.devices=2"], root / folder_name(case, name)) for name in strategies]
    together(commands, root)
    return root


@pytest.fixture(scope="module")
def runs(world, command, tmp_path_factory) -> Path:
    return run_cases(CASES, tmp_path_factory.mktemp("strategies"), world, command)


@pytest.fixture(scope="module")
def full_runs(world, command, tmp_path_factory) -> Path:
    return run_cases(FULL, tmp_path_factory.mktemp("full"), world, command)


def check_equal(learned, alone: Path, together: Path) -> None:
    """The same texts, batches and metrics, and weights that differ by rounding alone."""
    (one, metrics), (two, again) = learned(alone), learned(together)
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6
    assert len(metrics) == len(again) >= 2
    assert metrics[0] != metrics[-1], "nothing was learned"
    for mine, theirs in zip(metrics, again, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-4)


@pytest.mark.parametrize(("case", "strategy"), pairs(CASES))
def test_two_processes_learn_what_one_learns(runs, learned, case, strategy):
    check_equal(learned, runs / folder_name(case, "one"), runs / folder_name(case, strategy))


@pytest.mark.full
@pytest.mark.parametrize(("case", "strategy"), pairs(FULL))
def test_two_processes_learn_what_one_learns_of_each_feature_alone(full_runs, learned, case, strategy):
    check_equal(learned, full_runs / folder_name(case, "one"), full_runs / folder_name(case, strategy))


def resume_first_checkpoint(runs: Path, cases: list[str], learned, folder: Path) -> None:
    resumed = []
    for case in cases:
        shutil.copytree(runs / case, folder / case)
        for file in [folder / case / "result.json", *(folder / case).glob("**/*.safetensors")]:
            file.unlink()
        steps = list((folder / case / "checkpoints").glob("*/step_*"))
        assert len(steps) >= 2
        for step in steps:
            if step.name != "step_1":
                shutil.rmtree(step)
        resumed.append(([f"resume={folder / case}"], folder / case))
    together(resumed, folder)
    for _, run_folder in resumed:
        (weights, metrics), (weights_again, metrics_again) = learned(runs / run_folder.name), learned(run_folder)
        assert weights.keys() == weights_again.keys()
        assert all(torch.equal(weights[name], weights_again[name]) for name in weights), run_folder.name
        assert metrics == metrics_again, run_folder.name


def test_a_run_of_two_processes_goes_on_exactly(runs, learned, tmp_path):
    """From its first checkpoint, bitwise: shards of weights and of Adam's states, the KL coefficient, running statistics."""
    resume_first_checkpoint(runs, [folder_name(*pair) for pair in RESUMED], learned, tmp_path)


@pytest.mark.full
def test_every_run_of_two_processes_goes_on_exactly(full_runs, learned, tmp_path):
    resume_first_checkpoint(full_runs, [folder_name(*pair) for pair in pairs(FULL)], learned, tmp_path)


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
