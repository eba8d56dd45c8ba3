"""policy_tuning=lora by its commands: plain folders, changed in adapted layers only, and a reference that is the start."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_lightning.run import Run

pytest.importorskip("peft")
LORA = ("policy_tuning=lora", "policy_tuning.rank=4", "policy_tuning.targets=[q_proj]")


def changed(before, after) -> set[str]:
    """The last two parts of the names of weights that differ between two plain folders."""
    one, two = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (before, after))
    assert one.keys() == two.keys()
    return {".".join(name.split(".")[-2:]) for name in one if not torch.equal(one[name], two[name])}


@pytest.fixture
def loads(monkeypatch) -> list[object]:
    """What each load of a language model was given."""
    seen: list[object] = []
    load = Run.language_model

    def counted(self, path=None, corpus=()):
        seen.append(path)
        return load(self, path, corpus)

    monkeypatch.setattr(Run, "language_model", counted)
    return seen


def test_ppo_trains_adapters_without_a_second_copy(command, world, loads):
    outcome = command(*world.ppo(*LORA, "ppo.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    assert len(loads) == 1
    assert changed(world.policy, outcome.folder / "policy") == {"q_proj.weight"}
    assert outcome.result()["figures"]["kl"] != 0.0
    assert "policy_tuning=lora: 128 of" in outcome.out  # one layer: rank 4 x (16 in + 16 out)


def test_an_untrained_adapter_changes_nothing(command, world):
    outcome = command(*world.ppo(*LORA, "ppo.learning_rate=1e-30"))
    figures = outcome.result()["figures"]
    assert figures["kl"] == 0.0
    assert figures["score/after"] == figures["score/before"]
    assert changed(world.policy, outcome.folder / "policy") == set()


def test_the_kl_is_that_to_the_start(command, world):
    """The saved policies of a run with adapters, measured against the start's folder, give the KL that the run saw."""
    outcome = command(*world.ppo(*LORA, "ppo.learning_rate=1e-2"))
    again = command(*world.evaluate(f"backbone.path={outcome.folder / 'policy'}", f"stage.reference={world.policy}"))
    assert again.code == 0, again.error
    assert abs(outcome.result()["figures"]["kl"] - again.result()["figures"]["kl"]) < 1e-3


def test_preference_trains_adapters(command, world, loads):
    outcome = command(*world.preference(*LORA, "preference.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    assert len(loads) == 1
    assert changed(world.policy, outcome.folder / "policy") == {"q_proj.weight"}


def test_sft_of_a_pretrained_model_trains_adapters(command, world):
    words = [word for word in world.sft(*LORA, "sft.learning_rate=1e-2") if not word.startswith("backbone")]
    outcome = command(*words, *world.trained)
    assert outcome.code == 0, outcome.error
    assert changed(world.policy, outcome.folder / "policy") == {"q_proj.weight"}


def test_rounds_warm_a_random_model_up_whole_and_then_train_adapters(command, world, loads):
    outcome = command(*world.rounds(*LORA, "ppo.learning_rate=1e-2", "stage.max_rounds=2", "stage.target=1000"))
    assert outcome.code == 0, outcome.error
    assert loads == [None]
    assert "backbone=tiny begins at random weights" in outcome.out
    one, two = (outcome.folder / f"round_{number}" / "policy" for number in (1, 2))
    assert changed(outcome.folder / "sft", one) == changed(one, two) == {"q_proj.weight"}
