"""T5 and BART by command: warmed up, tuned with a scorer, measured; the reward model takes them as before."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM


def without_backbone(words):
    return [word for word in words if not word.startswith("backbone")]


@pytest.mark.parametrize("family", ["t5", pytest.param("bart", marks=pytest.mark.full)])
def test_sft_then_ppo_then_evaluate(command, world, family):
    warm = command(*without_backbone(world.sft("sft.epochs=1")), *world.reader(family))
    assert warm.code == 0, warm.error
    start = warm.folder / "policy"
    words = ["backbone=encoder_decoder", f"backbone.path={start}"]
    tuned = command(*without_backbone(world.ppo("ppo.learning_rate=1e-3")), *words)
    assert tuned.code == 0, tuned.error
    assert tuned.result()["metrics"]["kl"] != 0.0
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict() for folder in (start, tuned.folder / "policy"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    seen = command(*without_backbone(world.evaluate(f"stage.reference={start}")), words[0], f"backbone.path={tuned.folder / 'policy'}")
    assert seen.code == 0, seen.error
    assert abs(seen.result()["metrics"]["kl"] - tuned.result()["metrics"]["kl"]) < 1e-3


def test_nothing_learned_is_nothing_changed(command, world):
    outcome = command(*without_backbone(world.ppo("ppo.learning_rate=1e-30")), *world.reader("t5"))
    assert outcome.code == 0, outcome.error
    assert outcome.result()["metrics"]["kl"] == 0.0


def test_adapters_of_an_encoder_decoder_by_command(command, world):
    pytest.importorskip("peft")
    outcome = command(
        *without_backbone(world.ppo("policy_tuning=lora", "ppo.learning_rate=1e-2", "policy_critic=separate")), *world.reader("bart")
    )
    assert outcome.code == 0, outcome.error
    assert AutoModelForSeq2SeqLM.from_pretrained(outcome.folder / "policy")


def test_preference_refuses_it_by_name(command, world):
    outcome = command(*without_backbone(world.preference()), *world.reader("t5"))
    assert outcome.code == 2
    assert "stage=preference takes decoder-only models" in outcome.error


@pytest.mark.parametrize("sampler", ["continuous", "vllm"])
def test_samplers_for_decoders_alone_refuse_it(command, world, sampler):
    outcome = command(*without_backbone(world.ppo(f"rollout_sampler={sampler}")), *world.reader("t5"))
    assert outcome.code == 2
    assert f"rollout_sampler={sampler} draws from decoder-only models" in outcome.error


@pytest.mark.parametrize("tuning", [pytest.param("full", marks=pytest.mark.full), "lora"])
def test_rounds_go_round(command, world, tuning):
    if tuning == "lora":
        pytest.importorskip("peft")
    outcome = command(*without_backbone(world.rounds(f"policy_tuning={tuning}")), *world.reader("t5"))
    assert outcome.code == 0, outcome.error
    assert AutoModelForSeq2SeqLM.from_pretrained(outcome.folder / "round_1" / "policy")
