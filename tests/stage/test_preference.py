"""stage=preference by its command: what it leaves, what it learns, and what it can't learn from."""

from __future__ import annotations

import json

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.runtime.run import Run

registry.load_components()


@pytest.fixture
def thumbs(tmp_path) -> list[str]:
    """Thumbs on the world's prompts, as the words that read them."""
    file = tmp_path / "thumbs.jsonl"
    rows = [
        {"prompt": f"The {thing}:", "response": f" a {word} {thing}.", "label": word == "good"}
        for thing in ("lamp", "fan", "kettle", "tent", "desk", "rug", "pen", "bike")
        for word in ("good", "bad")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["feedback_format=[thumbs]", f"feedback_source.jsonl.path={file}"]


def test_it_leaves_a_folder_that_transformers_loads(command, world):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome = command(*world.preference("preference.learning_rate=1e-2"))
    assert outcome.code == 0, outcome.error
    before, after = AutoModelForCausalLM.from_pretrained(world.policy), AutoModelForCausalLM.from_pretrained(outcome.folder / "policy")
    assert before.state_dict().keys() == after.state_dict().keys()
    assert not all(torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True))
    assert after.config._attn_implementation == "sdpa", "the attention that the training ran with is its own affair"
    assert AutoTokenizer.from_pretrained(outcome.folder / "policy").get_vocab() == AutoTokenizer.from_pretrained(world.policy).get_vocab()


def test_it_writes_report_and_result(command, world):
    outcome = command(*world.preference("preference.epochs=20", "preference.learning_rate=1e-3"))
    result, report = outcome.result(), json.loads((outcome.folder / "report.json").read_text())
    assert report["title"] == "Preference optimisation"
    assert {"Loss", "Margin of implicit rewards"} <= {curve["name"] for curve in report["curves"]}
    metrics = result["metrics"]
    assert result["objective"] == metrics["accuracy/all"]
    assert {"kl", "held_out/margin", "held_out/better", "held_out/worse", "length/after"} <= set(metrics)
    assert metrics["accuracy/all"] > 0.9, "good and bad are easily told apart"
    assert metrics["held_out/margin"] > 0
    assert metrics["held_out/better"] > metrics["held_out/worse"]
    labels = [metric["label"] for metric in report["metrics"]]
    assert "Implicit-reward accuracy" in labels
    assert not any("Reward-model" in label for label in labels)
    assert len(report["samples"]) == 2


def test_nothing_learned_is_nothing_changed(command, world):
    """A learning rate too small for float32 leaves the policy, a KL of 0, and no implicit reward."""
    outcome = command(*world.preference("preference.learning_rate=1e-30"))
    metrics = outcome.result()["metrics"]
    assert metrics["kl"] == 0.0
    assert abs(metrics["held_out/margin"]) < 1e-5
    assert (outcome.folder / "policy" / "model.safetensors").read_bytes() == (world.policy / "model.safetensors").read_bytes()


def test_a_seed_says_everything(command, world):
    one, two, other = (command(*world.preference("preference.learning_rate=1e-3", f"seed={seed}")) for seed in (1, 1, 2))
    weights = [(outcome.folder / "policy" / "model.safetensors").read_bytes() for outcome in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert one.result()["metrics"] == two.result()["metrics"]


def test_thumbs_alone_train_kto(command, world, thumbs):
    outcome = command(*world.preference("preference_loss=kto", "preference.epochs=20", "preference.learning_rate=1e-3", *thumbs))
    assert outcome.code == 0, outcome.error
    assert outcome.result()["objective"] == outcome.result()["metrics"]["auc/thumbs"] > 0.9


class NoModel:
    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")


def test_what_does_not_go_together_is_refused_before_a_model_loads(command, world, thumbs, monkeypatch):
    monkeypatch.setattr(Run, "language_model", NoModel)
    for words, message in (
        (["preference_loss=kto"], "take comparisons as thumbs with preference_loss.from_pairs=true, or choose preference_loss=dpo"),
        (thumbs, "preference_loss=dpo learns from comparisons (pairs, rankings, edits, or several ratings by one annotator), and the "
         "feedback holds only thumbs: choose preference_loss=kto"),
        (["preference_loss.variant=hinge", "preference_loss.label_smoothing=0.1"], "means nothing with preference_loss.variant=hinge"),
        (["preference_loss.label_smoothing=0.5"], "preference_loss.label_smoothing=0.5"),
        (["feedback_source=[]"], "stage=preference learns from feedback: add `feedback_source="),
    ):  # fmt: skip
        outcome = command(
            *[word for word in world.preference() if "feedback_source.jsonl" not in word or words != ["feedback_source=[]"]], *words
        )
        assert outcome.code == 2, words
        assert message in outcome.error


def test_what_is_not_learned_from_is_reported(command, world, tmp_path):
    rows = (world.files / "feedback.jsonl").read_text()
    file = tmp_path / "more.jsonl"
    file.write_text(rows + json.dumps({"prompt": "The lamp:", "response": " ok", "label": True}) + "\n")
    words = [f"feedback_source.jsonl.path={file}", "feedback_format=[rating,ranking,edit,pairwise,thumbs]", "preference.max_length=14"]
    outcome = command(*world.preference(*words))
    assert outcome.code == 0, outcome.error
    assert "preference_loss=dpo doesn't learn from 1 of kind thumbs" in outcome.out
    assert "judgements have a text of more than 14 tokens and are left out" in outcome.out
    nothing = command(*world.preference("preference.max_length=4"))
    assert nothing.code == 2
    assert "longer than 4 tokens: raise preference.max_length" in nothing.error


def test_feedback_on_other_prompts_is_learned_and_not_measured_on_the_task_s(command, world):
    words = [word for word in world.preference() if not word.startswith("task")]
    outcome = command(*words)
    assert outcome.code == 0, outcome.error
    assert "kl" not in outcome.result()["metrics"]
    assert "no prompt of the feedback is one of the task's" in " ".join(json.loads((outcome.folder / "report.json").read_text())["notes"])


def test_without_a_source_the_annotators_judge_and_utility_is_measured(command, world):
    words = [
        "task=reviews",
        "task.demonstrations=60",
        *world.tiny,
        *world.sizes,
        "backbone.positions=128",
        "stage.prompts=24",
        "stage.responses=3",
    ]
    outcome = command("stage=preference", *words)
    assert outcome.code == 0, outcome.error
    metrics = outcome.result()["metrics"]
    assert outcome.result()["objective"] == metrics["utility/after"]
    assert {"utility/before", "kl", "accuracy/all"} <= set(metrics)
    assert (outcome.folder / "sft" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.full
def test_dpo_raises_the_hidden_utility_of_the_embedded_world(command, world):
    """The default task, made smaller: the annotators' rankings, ratings and edits alone, no reward model."""
    sizes = ["task.demonstrations=1000", "backbone.width=64", "stage.prompts=160", "sft.epochs=4", "evaluation.responses=96", "logger=none"]
    outcome = command("stage=preference", *sizes)
    assert outcome.code == 0, outcome.error
    metrics = outcome.result()["metrics"]
    assert metrics["utility/after"] > metrics["utility/before"] + 0.4
    # 0.60, 0.66 and 0.62 with seeds 0, 1 and 2, on some 120 comparisons.
    assert metrics["accuracy/all"] > 0.55
