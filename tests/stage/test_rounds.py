"""stage=rounds by its command: the whole loop, the same again with the same seed, and when it stops."""

from __future__ import annotations

import json
import re

import pytest


def table_of(outcome) -> str:
    """What was printed, without timings and folders."""
    text = re.sub(
        r"([\d,]+ tokens/s +)?([\d.]+ s, )?[\d.]+ s( left)?$", "", outcome.out.replace(str(outcome.folder), "RUN"), flags=re.MULTILINE
    )
    return re.sub(r"^(sft|evaluate|collect|reward|ppo|all) +[\d.]+$", r"\1", text, flags=re.MULTILINE)


def test_every_round_leaves_its_folders(command, world):
    from transformers import AutoModelForCausalLM

    outcome = command(*world.rounds("stage.max_rounds=2", "stage.target=utility>=1000"))
    assert outcome.code == 0, outcome.error
    for folder in ("sft", "round_1/policy", "round_2/policy"):
        assert AutoModelForCausalLM.from_pretrained(outcome.folder / folder)
    report = json.loads((outcome.folder / "report.json").read_text())
    assert [row["number"] for row in report["rounds"]] == [0, 1, 2]
    for number in (1, 2):
        rows = [json.loads(line) for line in (outcome.folder / f"round_{number}" / "feedback.jsonl").read_text().splitlines()]
        assert len(rows) == report["rounds"][number]["collected"] > 0
        assert {row["judgement"]["kind"] for row in rows} == {"rating", "ranking", "edit"}
        assert (outcome.folder / f"round_{number}" / "reward_model" / "reward_model.json").is_file()
    assert outcome.result()["metrics"]["rounds"] == 2.0
    assert "utility" in outcome.out


def test_the_same_seed_prints_the_same_table(command, world):
    one, two, other = (command(*world.rounds(f"seed={seed}", "ppo.learning_rate=1e-2")) for seed in (5, 5, 6))
    assert (one.code, two.code, other.code) == (0, 0, 0)
    assert table_of(one) == table_of(two) != table_of(other)
    assert one.result()["metrics"] == two.result()["metrics"]
    again = [(o.folder / "round_1" / "feedback.jsonl").read_text() for o in (one, two, other)]
    assert again[0] == again[1] != again[2]


def test_it_stops_once_the_target_is_met(command, world):
    """A second round is not begun where the first is enough, however little is asked."""
    words = [
        "stage.max_rounds=3",
        "stage.target=utility>=1e-6",
        "ppo.updates=8",
        "ppo.learning_rate=1e-2",
        "sft.epochs=4",
        "evaluation.responses=64",
    ]
    outcome = command(*world.rounds(*words))
    assert outcome.code == 0, outcome.error
    improvement, rounds = outcome.result()["objective"], outcome.result()["metrics"]["rounds"]
    report = json.loads((outcome.folder / "report.json").read_text())
    assert report["target"]["met"] == (improvement >= 1e-6)
    assert rounds == 3 or improvement >= 1e-6


@pytest.mark.parametrize(
    "words",
    [
        ["feedback_annotator.simulated.rankings=0", "feedback_annotator.simulated.edits=0"],
        ["feedback_annotator.simulated.ratings=0", "feedback_annotator.simulated.edits=0"],
        ["feedback_annotator.simulated.ratings=0", "feedback_annotator.simulated.rankings=0"],
        [
            "feedback_annotator.simulated.ratings=1",
            "feedback_annotator.simulated.rankings=0",
            "feedback_annotator.simulated.edits=0",
            "stage.prompts=40",
        ],
    ],
    ids=["ratings", "rankings", "edits", "ratings that compare nothing"],
)
def test_one_kind_of_feedback_is_enough(command, world, words):
    outcome = command(*world.rounds(*words))
    assert outcome.code == 0, outcome.error


def test_no_feedback_is_reported(command, world):
    outcome = command(*world.rounds(*(f"feedback_annotator.simulated.{kind}=0" for kind in ("ratings", "rankings", "edits"))))
    assert outcome.code == 2
    assert "no feedback" in outcome.error


def test_the_utility_must_be_measured(command, world):
    outcome = command(*world.rounds("evaluation_metric=[length]"))
    assert outcome.code == 2
    assert "evaluation_metric" in outcome.error
    assert "utility" in outcome.error


def test_a_task_without_a_utility_is_refused(command, world):
    outcome = command("stage=rounds", *world.task, *world.tiny, *world.sizes)
    assert outcome.code == 2
    assert "task=reviews" in outcome.error
