"""stage=sft by its command: the folder it leaves, what it learns, and what it can't learn from."""

from __future__ import annotations

import json
import re

import pytest
import torch


def losses(outcome) -> list[float]:
    (curve,) = json.loads((outcome.folder / "report.json").read_text())["curves"]
    return curve["series"][0]["ys"]


def test_it_leaves_a_folder_that_transformers_loads(command, world):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome = command(*world.sft("backbone.positions=64"))
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "policy"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The lamp:", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    assert tokenizer.decode(ids[0]) == "The lamp:"
    assert not list(folder.glob("*.bin")), "weights are safetensors"
    assert f"policy: {folder}" in outcome.out


def test_it_writes_report_and_result(command, world):
    outcome = command(*world.sft())
    report = json.loads((outcome.folder / "report.json").read_text())
    assert report["title"] == "Supervised fine-tuning"
    assert "Supervised fine-tuning" in (outcome.folder / "report.html").read_text()
    result = outcome.result()
    assert result["objective"] == result["metrics"]["sft/loss"]
    assert result["seconds"]["sft"] > 0


def test_it_learns_the_demonstrations(command, world):
    """Twelve sentences by heart: the loss per token falls from that of a uniform choice to nearly nothing."""
    words = ["sft.epochs=60", "sft.learning_rate=1e-2", "backbone.width=32", "task.test_fraction=0"]
    outcome = command(*world.sft(*words))
    assert losses(outcome)[0] > 4.0
    assert outcome.result()["objective"] < 0.3


def test_a_seed_says_everything(command, world):
    one, two, other = (command(*world.sft(f"seed={seed}")) for seed in (1, 1, 2))
    weights = [(outcome.folder / "policy" / "model.safetensors").read_bytes() for outcome in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert losses(one) == losses(two) != losses(other)


def test_what_is_too_long_is_left_out_and_counted(command, world, tmp_path):
    prompts = (world.files / "prompts.jsonl").read_text()
    file = tmp_path / "demonstrations.jsonl"
    file.write_text(prompts + '{"prompt": "The lamp, again:", "response": "' + " a good lamp and a good fan" * 9 + '"}\n')
    own = [f"task.demonstrations={file}", "backbone.positions=256"]
    outcome = command(*world.sft(*own, "sft.max_length=20"))
    assert outcome.code == 0, outcome.error
    assert re.search(r"sft: 1 of \d+ demonstrations are longer than 20 tokens and left out", outcome.out)
    assert "left out" not in command(*world.sft(*own)).out
    none = command(*world.sft("sft.max_length=2"))
    assert none.code == 2
    assert "demonstrations fits 2 tokens: raise sft.max_length=2" in none.error


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_every_seed_of_the_range_runs(command, world, seed):
    assert command(*world.sft(f"seed={seed}")).code == 0


@pytest.mark.parametrize(
    ("word", "hidden"),
    [("+hydra.job.env_set.MY_API_KEY=hunter2", "hunter2"), ("+hydra.job.env_set.hf_token=hunter2", "hunter2")],
)
def test_a_secret_of_the_command_line_is_written_nowhere(command, world, word, hidden):
    outcome = command(*world.sft(word))
    assert outcome.code == 0, outcome.error
    for name in ("report.html", "report.json", "config.yaml", "result.json"):
        assert hidden not in (outcome.folder / name).read_text(), name
    assert word.partition("=")[0] + "=***" in json.loads((outcome.folder / "report.json").read_text())["command"]


def test_the_command_of_the_report_is_the_one_given(command, world):
    """Nothing that only sounds like a secret is hidden."""
    outcome = command(*world.sft("rollout_sampler.max_new_tokens=9"))
    assert "rollout_sampler.max_new_tokens=9" in json.loads((outcome.folder / "report.json").read_text())["command"]
