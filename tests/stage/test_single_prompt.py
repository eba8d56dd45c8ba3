"""Feedback on a single prompt, or on texts without one, is trained on and measured with texts held out, in each stage that divides it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

THINGS = ["lamp", "fan", "kettle", "tent", "desk", "rug", "pen", "bike", "clock", "boat", "vase", "drum"]


def texts(i: int) -> tuple[str, str]:
    thing = THINGS[i % len(THINGS)]
    return f" a good {thing}, number {i}.", f" bad, bad {thing}, number {i}"


def ratings(prompt: str | None, count: int = 60) -> list[dict[str, object]]:
    asked = {} if prompt is None else {"prompt": prompt}
    return [{**asked, "response": text, "rating": rating} for i in range(count // 2) for text, rating in zip(texts(i), (5, 1), strict=True)]


def pairs(prompt: str, count: int = 40) -> list[dict[str, object]]:
    return [{"prompt": prompt, "chosen": good, "rejected": bad} for good, bad in map(texts, range(count))]


SINGLE = {"ratings without prompts": ratings(None), "ratings on one prompt": ratings("Review:"), "pairs on one prompt": pairs("Review:")}


def source(folder: Path, rows: list[dict[str, object]]) -> list[str]:
    file = folder / "single.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}"]
    if "chosen" in rows[0]:
        return [*words, "feedback_format=[pairwise]"]
    prompt = [] if "prompt" in rows[0] else ["feedback_format.rating.prompt=null"]
    return [*words, "feedback_format=[rating]", "feedback_format.rating.scale=[1,5]", *prompt]


@pytest.mark.parametrize("rows", SINGLE.values(), ids=SINGLE.keys())
@pytest.mark.parametrize("head", ["linear", "features"])
def test_a_reward_model_learns_and_says_what_was_held_out(command, world, tmp_path, rows, head):
    words = world.reward(*source(tmp_path, rows), f"reward_head={head}", "reward.epochs=2", "reward.learning_rate=1e-2")
    outcome = command(*words)
    assert outcome.code == 0, outcome.error
    assert "held out by text" in outcome.out
    assert any("held out by text" in note for note in json.loads((outcome.folder / "report.json").read_text())["notes"])
    about = json.loads((outcome.folder / "reward_model" / "reward_model.json").read_text())
    assert about["held_out_by"] == "text"
    assert "none on both sides" in about["held_out_note"]
    if head == "features":
        assert outcome.result()["metrics"]["accuracy/all"] == 1.0
    else:
        assert "held out by text" in (outcome.folder / "reward_model" / "README.md").read_text()
        again = command(*words)
        weights = [(one.folder / "reward_model" / "model.safetensors").read_bytes() for one in (outcome, again)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_policy_learns_from_pairs_on_one_prompt(command, world, tmp_path, loss):
    from_pairs = ["preference_loss.from_pairs=true"] if loss == "kto" else []
    outcome = command(*world.preference(*source(tmp_path, SINGLE["pairs on one prompt"]), f"preference_loss={loss}", *from_pairs))
    assert outcome.code == 0, outcome.error
    assert "on 1 prompt: held out by text" in outcome.out
    assert "accuracy/all" in outcome.result()["metrics"]


def test_the_same_texts_are_measured_that_were_held_out(command, world, tmp_path):
    feedback = source(tmp_path, SINGLE["pairs on one prompt"])
    fraction = "reward.validation_fraction=0.3"
    trained = command(*world.reward(*feedback, "reward_head=features", fraction))
    measured = command(
        *world.evaluate_reward(*feedback, f"stage.models=[{trained.folder / 'reward_model'}]", "stage.prompts=held_out", fraction)
    )
    assert measured.code == 0, measured.error
    assert measured.result()["metrics"] == pytest.approx(trained.result()["metrics"])
    assert "held out by text" in measured.out


def test_a_model_that_held_out_prompts_is_not_measured_on_texts_that_it_learned(command, world, tmp_path):
    words = world.evaluate_reward(*source(tmp_path, SINGLE["pairs on one prompt"]), "stage.prompts=held_out")
    outcome = command(*words)
    assert outcome.code == 2
    assert "holds out none of these prompts" in outcome.error
    assert "held out prompts, and may have learned from these" in outcome.error


@pytest.mark.parametrize(("count", "code"), [(4, 0), (2, 0), (1, 2)])
def test_tiny_sets_are_divided_or_refused(command, world, tmp_path, count, code):
    outcome = command(*world.reward(*source(tmp_path, pairs("Review:", count)), "reward_head=features"))
    assert outcome.code == code, outcome.error
    assert "Traceback" not in outcome.error
    if code:
        assert "too few" in outcome.error


def test_an_ensemble_s_members_draw_texts(command, world, tmp_path):
    """Drawn by prompt, a member would learn from everything or from nothing."""
    words = [*source(tmp_path, SINGLE["pairs on one prompt"]), "reward_head=ensemble", "reward.learning_rate=1e-2"]
    outcome = command(*world.reward(*words))
    assert outcome.code == 0, outcome.error
