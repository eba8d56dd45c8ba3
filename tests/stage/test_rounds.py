"""stage=rounds by its command: the whole loop, the same again with the same seed, and when it stops."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest

from rlhf_lightning.cli.rounds import rounds as rounds_command
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.rounds import ledger
from rlhf_lightning.rounds.ledger import Ledger
from rlhf_lightning.stage import _round_steps
from rlhf_lightning.stage import rounds as rounds_stage
from rlhf_lightning.stage._sampling import sample_groups


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


def files_of(folder):
    """The SHA-256 of every model and every file of feedback."""
    paths = [path for path in folder.rglob("*") if path.suffix == ".safetensors" or path.name.endswith(".jsonl")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.name != ledger.FILE}


@pytest.fixture(scope="module")
def judged(command, world, tmp_path_factory):
    """Two rounds that aim at a win rate, undisturbed."""
    words = world.rounds("stage.max_rounds=2", "stage.target=win_rate>=0.9", "evaluation.responses=12", "ppo.learning_rate=1e-2")
    outcome = command(*words, folder=tmp_path_factory.mktemp("rounds") / "run")
    assert outcome.code == 0, outcome.error
    return words, outcome


def test_a_win_rate_is_judged_blindly_and_reported_with_its_interval(judged):
    _, outcome = judged
    metrics, report = outcome.result()["metrics"], json.loads((outcome.folder / "report.json").read_text())
    assert 0 <= metrics["target/low"] <= metrics["target"] == outcome.result()["objective"] <= metrics["target/high"] <= 1
    assert report["target"]["met"] == (metrics["target/low"] >= 0.9)
    assert report["rounds"][2]["win_rate"]["mean"] == metrics["target"]
    assert report["rounds"][2]["win_rate"]["level"] == 0.975
    rows = [json.loads(line) for line in (outcome.folder / "round_1" / "comparison.jsonl").read_text().splitlines()]
    trained = {row["prompt"] for row in map(json.loads, (outcome.folder / "round_1" / "feedback.jsonl").read_text().splitlines())}
    assert rows
    assert not trained & {row["prompt"] for row in rows}
    assert {row["judgement"]["kind"] for row in rows} == {"ranking"}


def test_a_run_that_stops_at_any_step_continues_to_the_same_result(command, judged, tmp_path, monkeypatch):
    """Stopped after the warm-up, before the first comparison, and in the second round."""
    words, whole = judged
    commit, sampled = Ledger.commit, []
    folder = tmp_path / "run"

    def commit_until(last):
        count = 0

        def interrupted(self, number, step, **content):
            nonlocal count
            commit(self, number, step, **content)
            count += 1
            if count == last:
                raise SystemExit(143)

        return interrupted

    monkeypatch.setattr(_round_steps, "sample_groups", lambda *args: sampled.append(args[-1]) or sample_groups(*args))
    arguments = [*words, f"hydra.run.dir={folder}"]
    for last in (1, 4, 6, 0):
        monkeypatch.setattr(Ledger, "commit", commit_until(last))
        outcome = command(*arguments, folder=folder)
        assert outcome.code == (143 if last else 0), outcome.error
        arguments = [f"resume={folder}"]
    assert files_of(folder) == files_of(whole.folder)
    assert outcome.result()["metrics"] == whole.result()["metrics"]
    assert sampled == [1, 2]


def test_a_finished_run_redoes_or_drops_a_round(command, judged, tmp_path, capsys):
    _, whole = judged
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    for path in folder.rglob("*.json*"):
        path.write_text(path.read_text().replace(str(whole.folder), str(folder)))
    rounds_command([str(folder), "redo=2"])
    assert "resume=" in capsys.readouterr().out
    outcome = command(f"resume={folder}", folder=folder)
    assert outcome.code == 0, outcome.error
    old, new = files_of(whole.folder), files_of(folder)
    assert {name for name in old if old[name] == new[name]} >= {name for name in old if name.startswith(("sft", "round_1"))}
    assert old["round_2/feedback.jsonl"] != new["round_2/feedback.jsonl"]
    assert new["round_2_before_1/feedback.jsonl"] == old["round_2/feedback.jsonl"]
    rounds_command([str(folder), "drop=1"])
    outcome = command(f"resume={folder}", folder=folder)
    assert outcome.code == 0, outcome.error
    report = json.loads((folder / "report.json").read_text())
    assert [row["number"] for row in report["rounds"]] == [0, 2, 3]
    assert report["feedback"][0]["collected"] < json.loads((whole.folder / "report.json").read_text())["feedback"][0]["collected"] * 2
    assert any("round 1 was dropped" in note for note in report["notes"])
    rounds_command([str(folder)])
    assert "dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["stage.train=preference", "stage.warm_reward=true", "stage.age_decay=0.5"],
        ["stage.train=sft_best", "stage.learn_edits=true", "policy_tuning=lora", "stage.watched_feedback=0.4"],
        [
            "ppo.ptx_coef=0.1",
            "stage.learn_edits=true",
            "stage.watched_feedback=0.4",
            "advantage=grpo",
            "feedback_selection=bald",
            "stage.questions=20",
        ],
    ],
    ids=["preference", "sft_best", "grpo"],
)
def test_other_ways_to_learn(command, world, words):
    outcome = command(*world.rounds("stage.max_rounds=2", "stage.target=utility>=1000", *words))
    assert outcome.code == 0, outcome.error
    weights = [(outcome.folder / name / "policy" / "model.safetensors").read_bytes() for name in ("round_1", "round_2")]
    assert weights[0] != weights[1]
    if "stage.questions=20" in words:
        rows = [json.loads(line) for line in (outcome.folder / "round_2" / "feedback.jsonl").read_text().splitlines()]
        questions = (outcome.folder / "round_2" / "questions.jsonl").read_text().splitlines()
        assert {row["selected_by"] for row in rows} == {"bald", "random"}
        assert [json.loads(line)["selected_by"] for line in questions] == ["random"] * 4 + ["bald"] * 16


def test_a_regression_chooses_questions_too(command, world):
    words = ["reward_head=features", "feedback_selection=d_optimal", "stage.questions=20", "stage.train=sft_best"]
    outcome = command(*world.rounds("stage.max_rounds=2", "stage.target=utility>=1000", *words))
    assert outcome.code == 0, outcome.error
    questions = [json.loads(line) for line in (outcome.folder / "round_2" / "questions.jsonl").read_text().splitlines()]
    assert [question["selected_by"] for question in questions] == ["random"] * 4 + ["d_optimal"] * 16


class Brevity:
    """An annotator for any task: shorter is better."""

    def judge(self, groups, *, number, kinds=("ranking",)):
        groups = [(prompt, texts) for prompt, texts in groups if len(texts) > 1]
        ranked = [(prompt, texts, sorted({len(text) for text in texts})) for prompt, texts in groups]
        return [
            Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(order.index(len(text)) for text in texts)))
            for prompt, texts, order in ranked
        ]


def test_any_task_and_model_without_demonstrations(command, world, monkeypatch):
    """The model is the initial policy; a lexicon watches, and has its own column of the report."""
    monkeypatch.setattr(rounds_stage, "build_annotators", lambda run, task: Brevity())
    words = [word for word in world.rounds() if not word.startswith(("backbone", "task.demonstrations"))]
    words += [*world.task[:2], "task.test_fraction=0.3", *world.trained, "stage.target=win_rate>=0.5", "stage.train=sft_best"]
    watch = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}"]
    outcome = command(*words, *watch, "evaluation.responses=6")
    assert outcome.code == 0, outcome.error
    assert not (outcome.folder / "sft").exists()
    assert 0 <= outcome.result()["objective"] <= 1
    assert "lexicon/before" in outcome.result()["metrics"]


def test_held_out_prompts_are_needed_for_a_win_rate(command, world, monkeypatch):
    monkeypatch.setattr(rounds_stage, "build_annotators", lambda run, task: Brevity())
    words = [word for word in world.rounds() if not word.startswith(("backbone", "task.demonstrations"))]
    words += [*world.task[:2], "task.test_fraction=0", *world.trained, "stage.target=win_rate>=0.5", "stage.train=sft_best"]
    outcome = command(*words)
    assert outcome.code == 2
    assert "task.test_fraction=0.1" in outcome.error


def test_a_task_without_a_utility_is_refused(command, world):
    outcome = command("stage=rounds", *world.task, *world.tiny, *world.sizes)
    assert outcome.code == 2
    assert "task=reviews" in outcome.error
