"""policy_tuning=lora by its commands: plain folders, changed in adapted layers only, and a reference that is the start."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_lightning.runtime.run import Run

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
    assert outcome.result()["metrics"]["kl"] != 0.0
    assert "policy_tuning=lora: 128 of" in outcome.out  # one layer: rank 4 x (16 in + 16 out)


def test_an_untrained_adapter_changes_nothing(command, world):
    outcome = command(*world.ppo(*LORA, "ppo.learning_rate=1e-30"))
    metrics = outcome.result()["metrics"]
    assert metrics["kl"] == 0.0
    assert metrics["score/after"] == metrics["score/before"]
    assert changed(world.policy, outcome.folder / "policy") == set()


def test_the_kl_is_that_to_the_start(command, world):
    """The saved policies of a run with adapters, measured against the start's folder, give the KL that the run saw."""
    outcome = command(*world.ppo(*LORA, "ppo.learning_rate=1e-2"))
    again = command(*world.evaluate(f"backbone.path={outcome.folder / 'policy'}", f"stage.reference={world.policy}"))
    assert again.code == 0, again.error
    assert abs(outcome.result()["metrics"]["kl"] - again.result()["metrics"]["kl"]) < 1e-3


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
    outcome = command(*world.rounds(*LORA, "ppo.learning_rate=1e-2", "stage.max_rounds=2", "stage.target=utility>=1000"))
    assert outcome.code == 0, outcome.error
    assert loads == [None]
    assert "backbone=tiny begins at random weights" in outcome.out
    one, two = (outcome.folder / f"round_{number}" / "policy" for number in (1, 2))
    assert changed(outcome.folder / "sft", one) == changed(one, two) == {"q_proj.weight"}


@pytest.fixture(scope="module")
def mixture(world, tmp_path_factory) -> str:
    """A folder with an untrained mixture of experts and the world's tokenizer."""
    from transformers import AutoTokenizer, MixtralConfig

    folder = tmp_path_factory.mktemp("mixture")
    tokenizer = AutoTokenizer.from_pretrained(world.policy)
    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        num_local_experts=4, max_position_embeddings=64, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("stage", ["sft", "preference", "ppo"])
def test_every_stage_keeps_and_trains_the_experts_of_a_mixture(command, world, mixture, stage):
    words = [word for word in getattr(world, stage)() if not word.startswith(("backbone", "rollout_scorer"))]
    scorer = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}"] if stage == "ppo" else []
    settings = ["policy_tuning=lora", "policy_tuning.rank=4", f"{stage}.learning_rate=1e-2"]
    outcome = command(*words, *scorer, "backbone=causal", f"backbone.path={mixture}", *settings)
    assert outcome.code == 0, outcome.error
    model, report = AutoModelForCausalLM.from_pretrained(outcome.folder / "policy", output_loading_info=True)
    assert not any(report.values())
    expected = {"experts.gate_up_proj", "experts.down_proj", "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"}
    assert expected <= changed(mixture, outcome.folder / "policy") <= expected | {"gate.weight"}
    assert model.config.num_local_experts == 4


def test_a_reward_model_on_a_mixture_keeps_and_trains_its_experts(command, world, mixture):
    from transformers import AutoModel, AutoModelForSequenceClassification

    words = [word for word in world.reward() if not word.startswith("backbone")]
    settings = ["reward_tuning=lora", "reward_tuning.rank=4", "reward.learning_rate=1e-2"]
    outcome = command(*words, "backbone=causal", f"backbone.path={mixture}", *settings)
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "reward_model"
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    before = AutoModel.from_pretrained(mixture).state_dict()
    after = model.base_model.state_dict()
    moved = {".".join(name.split(".")[-2:]) for name in before if not torch.equal(before[name], after[name])}
    assert {"experts.gate_up_proj", "experts.down_proj", "q_proj.weight"} <= moved


def test_adapters_of_a_bfloat16_reward_model_are_saved_in_float32_and_alone(command, world, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel

    settings = ["reward_tuning=lora", "reward.learning_rate=1e-2", "backbone.dtype=bfloat16", "backbone.activation_checkpointing=true"]
    outcome = command(*world.reward(*settings))
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "reward_model"
    assert {str(value.dtype) for value in load_file(folder / "model.safetensors").values()} == {"torch.float32"}
    # peft's model on the rounded start is the merged one.
    start, merged = AutoModel.from_pretrained(world.policy, dtype=torch.bfloat16).float(), AutoModel.from_pretrained(folder)
    start.resize_token_embeddings(merged.config.vocab_size)
    adapted, ids = PeftModel.from_pretrained(start, folder / "adapter"), torch.tensor([[5, 9, 12, 7]])
    with torch.no_grad():
        assert torch.allclose(adapted(input_ids=ids).last_hidden_state, merged(input_ids=ids).last_hidden_state, atol=1e-4)
    exported = command("export", str(folder), str(tmp_path / "classifier"))
    assert exported.code == 0, exported.error
    assert (tmp_path / "classifier" / "model.safetensors").is_file()
