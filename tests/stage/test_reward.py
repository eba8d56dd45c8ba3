"""stage=reward by its command: all kinds of feedback together, the folder it leaves, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch

from rlhf_lightning.reward.folder import load_reward_model


def test_it_learns_from_every_kind_and_counts_them(command, world):
    outcome = command(*world.reward("reward.epochs=8", "reward.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    assert "60 judgements: 12 edit, 12 pair, 12 ranking, 24 rating" in outcome.out
    figures = outcome.result()["figures"]
    assert {"accuracy/all", "accuracy/pair", "accuracy/edit", "accuracy/ranking", "accuracy/rating", "spearman/rating"} == set(figures)
    assert outcome.result()["objective"] == figures["accuracy/all"] > 0.8
    report = json.loads((outcome.folder / "report.json").read_text())
    assert {row["kind"]: row["kept"] for row in report["feedback"]} == {"edit": 12, "pair": 12, "ranking": 12, "rating": 24}
    assert "Reward model" in (outcome.folder / "report.html").read_text()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_folder_scores_as_the_model_did(command, world, head):
    """Loaded again the model ranks good above bad, and its scores over the training responses have mean 0 and variance 1."""
    outcome = command(*world.reward("reward.epochs=8", "reward.learning_rate=1e-2", f"reward_head={head}"))
    model = load_reward_model(str(outcome.folder / "reward_model"))
    prompts = ["The lamp:", "The lamp:"]
    good, bad = model.score_texts(prompts, [" a good lamp.", " bad, bad lamp"]).tolist()
    assert good > bad
    card = json.loads((outcome.folder / "reward_model" / "reward_model.json").read_text())
    assert (card["head"], card["pooling"]) == (head, "last")
    assert card["accuracy"]["all"] == outcome.result()["objective"]
    assert card["deviation"] > 0


def test_transformers_loads_the_folder_and_scores_alike(command, world):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    outcome = command(*world.reward("reward_head=linear"))
    folder = outcome.folder / "reward_model"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert theirs.config.num_labels == 1
    tokenizer, ours = AutoTokenizer.from_pretrained(folder), load_reward_model(str(folder)).eval()
    texts = [("The lamp:", " a good lamp."), ("The fan:", " bad, bad fan")]
    ids, mask = ours.tokenise(texts).padded(tokenizer.pad_token_id)
    with torch.no_grad():
        raw = theirs(input_ids=ids, attention_mask=mask).logits[:, 0]
    card = json.loads((folder / "reward_model.json").read_text())
    assert torch.allclose((raw - card["mean"]) / card["deviation"], ours.score_texts(*map(list, zip(*texts, strict=True))), atol=1e-5)
    assert tokenizer("The lamp:").input_ids


def test_a_frozen_backbone_stays_as_it_was(command, world):
    """The linear regression r = w·phi(x, y): the trunk is that of the policy, bit by bit."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    outcome = command(*world.reward("reward_tuning=frozen", "reward.learning_rate=1e-1"))
    before = AutoModelForCausalLM.from_pretrained(world.policy).base_model.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(outcome.folder / "reward_model").base_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = command(*world.reward("reward.learning_rate=1e-1"))
    after = AutoModelForSequenceClassification.from_pretrained(moved.folder / "reward_model").base_model.state_dict()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_a_seed_says_everything(command, world):
    one, two, other = (command(*world.reward(f"seed={seed}")) for seed in (1, 1, 2))
    weights = [(outcome.folder / "reward_model" / "model.safetensors").read_bytes() for outcome in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]


def test_a_kind_that_no_loss_learns_from_is_refused(command, world):
    outcome = command(*world.reward("reward_loss=[bradley_terry]"))
    assert outcome.code == 2
    assert "none of reward_loss=[BradleyTerry] learns from them" in outcome.error


def test_feedback_on_one_prompt_can_not_be_split(command, world, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    outcome = command(*world.reward(f"feedback_source.jsonl.path={file}"))
    assert outcome.code == 2
    assert "give feedback on more prompts, or change reward.validation_fraction" in outcome.error


def test_a_bad_line_stops_the_run_or_is_set_aside(command, world, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text((world.files / "feedback.jsonl").read_text() + '{"prompt": "a", "chosen": 3, "rejected": "c"}\n')
    refused = command(*world.reward(f"feedback_source.jsonl.path={file}"))
    assert refused.code == 2
    assert f"{file}:61" in refused.error
    aside = command(*world.reward(f"feedback_source.jsonl.path={file}", "feedback.on_bad=quarantine"))
    assert aside.code == 0, aside.error
    assert "chosen" in (aside.folder / "quarantine.jsonl").read_text()
    assert "60 judgements" in aside.out


def test_a_backbone_made_on_the_spot_is_kept_beside(command, world):
    outcome = command(*world.reward()[:1], *world.feedback, *world.tiny, *world.sizes)
    assert outcome.code == 0, outcome.error
    assert (outcome.folder / "backbone" / "model.safetensors").is_file()
