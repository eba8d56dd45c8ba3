"""stage=ppo by its command: the folder it leaves, which parts it makes, and which combinations it refuses."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from rlhf_lightning import registry
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.policy.critic import shared
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage import _ppo_checks
from rlhf_lightning.stage import ppo as ppo_stage

registry.load_components()


def test_it_leaves_a_folder_that_transformers_loads(command, world):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome = command(*world.ppo("ppo.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "policy"
    before, after = AutoModelForCausalLM.from_pretrained(world.policy), AutoModelForCausalLM.from_pretrained(folder)
    assert before.state_dict().keys() == after.state_dict().keys(), "no critic, no reference in it"
    assert not all(torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True))
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(world.policy).get_vocab()


def test_it_writes_report_and_result(command, world):
    outcome = command(*world.ppo())
    result, report = outcome.result(), json.loads((outcome.folder / "report.json").read_text())
    assert result["objective"] == result["metrics"]["score/after"]
    assert {"score/before", "kl", "length/after"} <= set(result["metrics"])
    assert report["title"] == "PPO"
    assert report["curves"]
    assert len(report["samples"]) == 2
    assert "PPO" in (outcome.folder / "report.html").read_text()


def test_nothing_learned_is_nothing_changed(command, world):
    """A learning rate too small for float32 leaves the policy, its scores and a KL of exactly 0."""
    outcome = command(*world.ppo("ppo.learning_rate=1e-30"))
    metrics = outcome.result()["metrics"]
    assert metrics["kl"] == 0.0
    assert metrics["score/after"] == metrics["score/before"]
    saved, start = outcome.folder / "policy" / "model.safetensors", world.policy / "model.safetensors"
    assert saved.read_bytes() == start.read_bytes()


def test_a_seed_says_everything(command, world):
    one, two, other = (command(*world.ppo("ppo.learning_rate=1e-3", f"seed={seed}")) for seed in (1, 1, 2))
    weights = [(outcome.folder / "policy" / "model.safetensors").read_bytes() for outcome in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert one.result()["metrics"] == two.result()["metrics"]


class NoCritic:
    def __init__(self, *_: object) -> None:
        raise AssertionError("a critic was made")


def estimators(*names: str) -> list[object]:
    """All advantages as parameters; those that aren't named under the marker `full`."""
    options = registry.components("advantage")
    return [pytest.param(c, id=c.name, marks=[pytest.mark.full] * (c.name not in names)) for c in options]


@pytest.mark.parametrize("component", estimators("gae", "rloo", "remax"))
def test_an_estimator_gets_a_critic_only_where_it_needs_one(command, world, component, monkeypatch):
    monkeypatch.setattr(shared, "Critic", NoCritic)
    words = world.ppo(f"advantage={component.name}")
    if "values" in component.needs:
        with pytest.raises(AssertionError, match="a critic was made"):
            command(*words)
    else:
        assert command(*words).code == 0
    assert {c.name for c in registry.components("advantage") if "values" in c.needs} == {"gae"}


@pytest.mark.parametrize("component", estimators("reinforce", *(c.name for c in registry.components("advantage") if "groups" in c.needs)))
def test_one_response_a_prompt_is_refused_where_responses_are_compared(command, world, component):
    outcome = command(*world.ppo(f"advantage={component.name}", "ppo.responses_per_prompt=1"))
    if "groups" in component.needs:
        assert outcome.code == 2
        assert f"advantage={component.name} compares responses to one prompt" in outcome.error
    else:
        assert outcome.code == 0, outcome.error


def test_an_estimator_that_needs_what_is_not_there_is_refused(command, world, monkeypatch):
    monkeypatch.setattr(_ppo_checks, "PROVIDED", ("groups",))
    outcome = command(*world.ppo("advantage=gae"))
    assert outcome.code == 2
    assert "advantage=gae needs values, but stage=ppo provides groups" in outcome.error


def logged(outcome) -> list[dict[str, str]]:
    with next(outcome.folder.glob("logs/**/metrics.csv")).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("kl", "shapings", "order"),
    [
        ("reward", "missing_eos", ["missing_eos", "RewardKL.shape_rewards"]),
        ("reward", "missing_eos,whiten_rewards", ["missing_eos", "RewardKL.shape_rewards", "whiten_rewards"]),
        ("reward", "", ["RewardKL.shape_rewards"]),
        ("loss", "missing_eos", ["missing_eos", "KLPenalty.shape_rewards"]),
    ],
)
def test_the_kl_in_the_reward_comes_before_whitening(kl, shapings, order, tmp_path):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = Run(compose("config", ["stage=ppo", f"policy_kl={kl}", f"rollout_shaping=[{shapings}]"]), tmp_path)
    assert [getattr(shape, "func", shape).__qualname__ for shape in ppo_stage.reward_shapings(run, run.build("policy_kl"))] == order


def test_without_a_penalty_the_kl_is_only_logged(command, world):
    free, paid = (logged(command(*world.ppo("logger=csv", f"policy_kl={kl}", "ppo.learning_rate=1e-2"))) for kl in ("none", "reward"))
    assert float(free[1]["objective/kl"]) != 0  # the k1 estimate of a few samples may be negative
    assert float(free[1]["objective/rlhf_reward"]) != float(paid[1]["objective/rlhf_reward"])
    assert "loss/kl_penalty_avg" not in free[1]


def test_corrections_and_penalties_are_at_work(command, world):
    """The policy that wrote the sampler's log-probabilities is the trainer's: every weight is 1, and the first KL is 0."""
    outcome = command(*world.ppo("policy_correction=masked", "policy_kl=loss", "logger=csv"))
    assert outcome.code == 0, outcome.error
    first = logged(outcome)[0]
    assert float(first["policy/correction_avg"]) == pytest.approx(1.0, abs=1e-4)
    assert float(first["policy/correctionfrac_avg"]) == 0.0
    assert 0.0 <= float(first["loss/kl_penalty_avg"]) < 1.0


@pytest.mark.parametrize("late", ["clip_score", "normalise_score"])
def test_a_shaping_of_scores_behind_one_of_rewards_is_refused(command, world, late):
    outcome = command(*world.ppo(f"rollout_shaping=[missing_eos,{late}]"))
    assert outcome.code == 2
    assert f"write rollout_shaping=[{late},...] with it first" in outcome.error


def test_minibatches_may_be_as_many_as_responses(command, world):
    assert command(*world.ppo("ppo.num_minibatches=8")).code == 0
    outcome = command(*world.ppo("ppo.num_minibatches=9"))
    assert outcome.code == 2
    assert "ppo.num_minibatches=9 is more than the 8 responses of an update" in outcome.error


def test_a_prompt_without_room_is_refused_by_its_text(command, world):
    outcome = command(*world.ppo("rollout_sampler.max_new_tokens=60"))
    assert outcome.code == 2
    assert "lower rollout_sampler.max_new_tokens" in outcome.error


def test_a_lexicon_s_words_are_learned(command, world, tmp_path):
    """The rule pays for a letter; PPO on the tiny policy writes it more often."""
    lexicon = tmp_path / "l.tsv"
    lexicon.write_text("".join(f"{word}\t2\n" for word in ("good", "a", "o", "oo", "d", "od", "lamp", "go")))
    words = [
        "rollout_scorer=lexicon",
        f"rollout_scorer.lexicon.path={lexicon}",
        "rollout_scorer.lexicon.normalise=mean",
        "rollout_shaping=[]",
    ]
    sizes = ["ppo.updates=30", "ppo.prompts_per_update=8", "ppo.responses_per_prompt=8", "ppo.learning_rate=1e-2", "advantage=rloo"]
    outcome = command(*world.ppo(*words, *sizes, "evaluation.responses=64"))
    assert outcome.code == 0, outcome.error
    metrics = outcome.result()["metrics"]
    assert metrics["score/after"] > metrics["score/before"] + 1
