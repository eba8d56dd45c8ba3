"""evaluation.every and checkpoint.monitor by commands: bitwise trainings, the best weights, and transformers' own losses."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.reward.module import ordered_pairs
from rlhf_lightning.testing.trial import judgement_batch

CONSTANT = ["ppo.updates=3", "ppo.learning_rate=1e-2", "schedule=constant", "logger=csv"]


def weights_of(outcome):
    return load_file(outcome.folder / "policy" / "model.safetensors")


def equal(one, two) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def rows_of(outcome, file: str) -> list[dict[str, str]]:
    with next(outcome.folder.glob(f"logs/*/{file}")).open() as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def plain(command, world):
    return command(*world.ppo(*CONSTANT))


@pytest.fixture(scope="module")
def best(command, world):
    words = ["evaluation.every=1", "evaluation.completions_every=2", "checkpoint.monitor=evaluation/score"]
    outcome = command(*world.ppo(*CONSTANT, *words))
    assert outcome.code == 0, outcome.error
    return outcome


def test_the_policy_is_that_of_a_training_of_the_best_step(command, world, plain, best):
    result = best.result()
    kept = result["trainings"]["ppo"]["best"]
    scores = [float(row["evaluation/score"]) for row in rows_of(best, "metrics.csv")]
    assert kept == {"step": scores.index(max(scores)) + 1, "metric": "evaluation/score", "value": pytest.approx(max(scores))}
    same = plain if kept["step"] == 3 else command(*world.ppo(*CONSTANT, f"ppo.updates={kept['step']}"))
    assert equal(weights_of(best), weights_of(same))
    assert same.result()["metrics"] == result["metrics"], "the evaluation during the training is the one after it"
    assert any(f"step {kept['step']} of 3" in note for note in json.loads((best.folder / "report.json").read_text())["notes"])
    assert f"step {kept['step']}" in best.out


def test_metrics_samples_and_seconds_are_in_the_logs_and_the_report(plain, best):
    table = rows_of(best, "samples.csv")
    assert [(row["step"], row["prompts"]) for row in table[::2]] == [
        ("1", "held-out"),
        ("2", "training"),
        ("2", "held-out"),
        ("3", "held-out"),
    ]
    assert all(row["prompt"] and float(row["score"]) for row in table)
    report = json.loads((best.folder / "report.json").read_text())
    curves = {curve["name"]: curve["series"][0]["ys"] for curve in report["curves"]}
    assert len(curves["Held out: Score"]) == len(curves["Held out: KL from the start"]) == 3
    assert {entry["stage"] for entry in report["seconds"]} == {"evaluate", "ppo"}
    assert [row["objective/kl"] for row in rows_of(best, "metrics.csv")] == [row["objective/kl"] for row in rows_of(plain, "metrics.csv")]


@pytest.mark.parametrize(("model", "monitor"), [("tiny", "evaluation/loss"), ("t5", None)])
def test_the_held_out_loss_of_sft_is_transformers_own(command, world, model, monitor):
    words = ["sft.validation_fraction=0.3", "evaluation.every=2", "sft.epochs=2", "logger=csv"]
    start = world.sft("backbone.positions=64") if model == "tiny" else ["stage=sft", *world.task, *world.reader(model), *world.sizes]
    outcome = command(*start, *words, *([f"checkpoint.monitor={monitor}"] if monitor else []))
    assert outcome.code == 0, outcome.error
    logged = [row for row in rows_of(outcome, "metrics.csv") if row["evaluation/loss"]]
    assert all(0 <= float(row["evaluation/accuracy"]) <= 1 for row in logged)
    if model != "tiny":
        return
    # The held-out prompts are those that no training step saw: the loss identifies them among all pairs of the demonstrations.
    policy = AutoModelForCausalLM.from_pretrained(outcome.folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(outcome.folder / "policy")
    prompts = [json.loads(line) for line in (world.files / "prompts.jsonl").read_text().splitlines()]
    sums = []
    for row in prompts:
        before, after = (tokenizer(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "response"))
        ids = torch.tensor([[*before, *after, tokenizer.eos_token_id]])
        with torch.no_grad():
            log_probs = policy(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[len(before) - 1 :, 0]
        sums.append((-float(log_probs.sum()), len(log_probs)))
    best_loss = outcome.result()["trainings"]["sft"]["best"]["value"]
    pairs = [(a + b) / (m + n) for i, (a, m) in enumerate(sums) for b, n in sums[:i]]
    assert min(abs(loss - best_loss) for loss in pairs) < 1e-5


def test_reward_and_preference_have_loss_and_accuracy(command, world):
    for words in (world.reward(), world.preference("preference_loss=kto", "preference_loss.from_pairs=true")):
        plain, evaluated = (command(*words, "logger=csv", *more) for more in ([], ["evaluation.every=1"]))
        assert evaluated.code == 0, evaluated.error
        assert evaluated.result()["metrics"] == plain.result()["metrics"]
        assert all(float(row["evaluation/loss"]) > 0 and row["evaluation/accuracy"] for row in rows_of(evaluated, "metrics.csv"))


def test_pairs_of_rankings_are_counted():
    ranked = [
        Feedback(prompt="a", responses=("x", "y", "z"), judgement=Ranking(ranks=(0, 1, 1))),
        Feedback(prompt="b", responses=("x", "y"), judgement=Ranking(ranks=(1, 0))),
    ]
    batch = judgement_batch(*ranked)
    hits, counted = ordered_pairs(batch, torch.tensor([2.0, 1.0, 3.0, 0.0, 0.5]))
    assert (int(hits), int(counted)) == (2, 3)
    assert int(ordered_pairs(batch.blank(), torch.zeros(5))[1]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["checkpoint.monitor=evaluation/scor", "evaluation.every=1"], ["evaluation/scor", "evaluation/score"]),
        (["checkpoint.monitor=evaluation/score"], ["checkpoint.monitor", "evaluation.every=10"]),
    ],
)
def test_a_metric_that_is_not_measured_is_refused(command, world, words, expected):
    outcome = command(*world.ppo(*words))
    assert outcome.code == 2
    assert all(text in outcome.error for text in expected)
