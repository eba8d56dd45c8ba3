"""stage=reward by its command: all kinds of feedback together, the folder it leaves, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch

from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.storage.folder import load_reward_model
from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer


def test_it_learns_from_every_kind_and_counts_them(command, world):
    outcome = command(*world.reward("reward.epochs=8", "reward.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    assert "60 judgements: 12 edit, 12 pair, 12 ranking, 24 rating" in outcome.out
    metrics = outcome.result()["metrics"]
    assert {
        "accuracy/all", "accuracy/pair", "accuracy/edit", "accuracy/ranking", "accuracy/rating", "spearman/rating", "kendall/ranking",
        "ece", "brier", "nll", "tied", "length/spearman", "length/partial",
    } <= set(metrics)  # fmt: skip
    assert outcome.result()["objective"] == metrics["accuracy/all"] > 0.8
    report = json.loads((outcome.folder / "report.json").read_text())
    assert {row["kind"]: row["remaining"] for row in report["feedback"]} == {"edit": 12, "pair": 12, "ranking": 12, "rating": 24}
    assert {"Loss", "Right, by how sure"} == {curve["name"] for curve in report["curves"]}
    assert {"Length", "Calibration", "Speed"} == {table["title"] for table in report["tables"]}
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
    assert card["metrics"]["accuracy/all"]["mean"] == outcome.result()["objective"]
    assert card["metrics"].keys() == outcome.result()["metrics"].keys()
    assert card["deviation"] > 0


def test_transformers_loads_the_folder_and_scores_alike(command, world):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    outcome = command(*world.reward("reward_head=linear"))
    folder = outcome.folder / "reward_model"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert theirs.config.num_labels == 1
    tokenizer, ours = AutoTokenizer.from_pretrained(folder), load_reward_model(str(folder)).eval()
    texts = [("The lamp:", " a good lamp."), ("The fan:", " bad, bad fan")]
    ids, mask = ours.tokenise(texts).to_padded(tokenizer.pad_token_id)
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


def test_a_single_judgement_can_not_be_divided(command, world, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    outcome = command(*world.reward(f"feedback_source.jsonl.path={file}"))
    assert outcome.code == 2
    assert "give feedback on more prompts or texts, or change reward.validation_fraction" in outcome.error


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


def test_scores_are_normalised_on_a_draw_of_many_texts(monkeypatch):
    """Beyond MAX_REFERENCES texts a fixed draw of so many, the same for a seed."""
    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.flow import Feedback, Ranking
    from rlhf_lightning.stage import _reward_training as module

    judged = standardise([Feedback(prompt=f"p{i}", responses=(f"a{i}", f"b{i}"), judgement=Ranking(ranks=(0, 1))) for i in range(50)])
    assert module.reference_texts(judged, 0) == judged.texts()
    for most in (70, 20):  # more texts than that, and more records
        monkeypatch.setattr(module, "MAX_REFERENCES", most)
        found = module.reference_texts(judged, 0)
        assert len(set(found)) == len(found) == most
        assert set(found) < set(judged.texts())
        assert found == module.reference_texts(judged, 0) != module.reference_texts(judged, 1)


FAMILIES = {
    "llama": "causal",
    "gpt2": "causal",
    "bert": "encoder",
    "modernbert": "encoder",
    "t5": "encoder_decoder",
    "bart": "encoder_decoder",
}


TUNINGS = [["full"], ["frozen"], ["last_layers", "reward_tuning.layers=1"], ["lora", "reward_tuning.rank=4"]]
"""Each family under two of them by default, so that each architecture meets all four: the product is `full`."""


@pytest.mark.parametrize(
    ("family", "tuning"),
    [
        pytest.param(family, tuning, id=f"{family}-{tuning[0]}", marks=[pytest.mark.full] * ((i + j) % 2))
        for i, family in enumerate(FAMILIES)
        for j, tuning in enumerate(TUNINGS)
    ],
)
def test_each_family_trains_saves_and_scores_as_it_did(command, world, trunk_folder, family, tuning):
    """Two steps and more of each backbone under each tuning; what was trained has moved, and nothing else has."""
    start = trunk_folder(family)
    words = [
        f"backbone={FAMILIES[family]}",
        f"backbone.path={start}",
        f"reward_tuning={tuning[0]}",
        *tuning[1:],
        "reward.learning_rate=1e-2",
    ]
    outcome = command(*world.reward(*words))
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "reward_model"
    before, _ = load_trunk(start)
    after, _ = load_trunk(str(folder))
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    moved = {name for name in old if old[name].shape == new[name].shape and not torch.equal(old[name], new[name])}
    assert bool(moved) == (tuning[0] != "frozen")
    if tuning[0] in ("last_layers", "lora"):
        assert not [name for name in moved if "embed" in name or name.startswith(("wte", "wpe", "shared"))]
    checker = RewardModelScorer(path=str(folder))  # its canary holds the scores to those at the end of the training
    card = json.loads((folder / "reward_model.json").read_text())
    assert card["tuning"] == tuning[0]
    assert card["judgements"]["pair"] > 0
    assert card["backbone"] is None
    assert card["exports"] == ("classifier" if FAMILIES[family] == "causal" else "trunk")
    readme = (folder / "README.md").read_text()
    assert "| accuracy/all |" in readme
    assert str(start) not in readme
    scores = checker.score(["The lamp:"] * 2, [" a good lamp.", " bad, bad lamp"])
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backbone=causal", "bert"], "backbone=causal takes a decoder-only model"),
        (["backbone=encoder", "t5"], "write backbone=encoder_decoder"),
        (["backbone=encoder_decoder", "gpt2"], "write backbone=causal"),
    ],
    ids=str,
)
def test_a_backbone_of_another_family_is_refused(command, world, trunk_folder, words, said):
    outcome = command(*world.reward(words[0], f"backbone.path={trunk_folder(words[1])}"))
    assert outcome.code == 2
    assert said in outcome.error


@pytest.mark.parametrize("stage", ["sft", "ppo", "evaluate", "rounds"])
def test_a_stage_that_writes_texts_refuses_a_backbone_that_only_reads(command, world, stage):
    words = [word for word in getattr(world, stage)() if not word.startswith("backbone")]
    outcome = command(*words, "backbone=encoder", "backbone.path=anywhere")
    assert outcome.code == 2
    assert f"stage={stage} needs a model that generates texts, and backbone=encoder only reads them" in outcome.error


def test_training_goes_on_from_a_reward_model(command, world):
    """Its score is the start of the next training: before the first step the model ranks as the first did."""
    first = command(*world.reward("reward.epochs=8", "reward.learning_rate=1e-2"))
    start = first.folder / "reward_model"
    outcome = command(*world.reward(f"backbone.path={start}", "reward.learning_rate=1e-9"))
    assert "its score is trained further" in outcome.out
    one, two = (load_reward_model(str(folder)).eval() for folder in (start, outcome.folder / "reward_model"))
    texts = (["The lamp:", "The fan:"] * 2, [" a good lamp.", " bad, bad fan", " it is lamp.", " a good fan."])
    assert torch.allclose(one.score_texts(*texts), two.score_texts(*texts), atol=1e-3)


def test_a_classifier_of_an_encoder_is_trained_as_it_is(command, world, trunk_folder, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(trunk_folder("bert"), num_labels=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(trunk_folder("bert")).save_pretrained(tmp_path)
    outcome = command(*world.reward("backbone=encoder", f"backbone.path={tmp_path}"))
    assert outcome.code == 0, outcome.error
    assert "is a BertForSequenceClassification with one label: it is trained as it is" in outcome.out
    theirs = AutoModelForSequenceClassification.from_pretrained(outcome.folder / "reward_model")
    assert theirs.config.num_labels == 1
    RewardModelScorer(path=str(outcome.folder / "reward_model"))


def test_the_features_head_needs_no_language_model_and_scores_for_the_policy(command, world):
    """Seconds, readable weights, and a folder that stage=ppo and stage=evaluate_reward take."""
    outcome = command(*world.reward("reward_head=features", "reward_head.l2=0.1", "reward_feature=[length,ngrams]"))
    assert outcome.code == 0, outcome.error
    assert outcome.result()["objective"] > 0.8
    assert "heaviest: ngrams: word: " in outcome.out
    folder = outcome.folder / "reward_model"
    assert not (outcome.folder / "backbone").exists()
    again = command(*world.evaluate_reward(f"stage.models=[{folder}]", "stage.prompts=held_out", "reward.validation_fraction=0.3"))
    assert again.code == 0, again.error
    assert again.result()["objective"] == pytest.approx(outcome.result()["objective"])
    tuned = command(*world.ppo("rollout_scorer=reward_model", f"rollout_scorer.reward_model.path={folder}"))
    assert tuned.code == 0, tuned.error
