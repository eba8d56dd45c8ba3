"""Several rewards through whole commands: what is logged and learned from is the weighted sum, by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k_tasks" / "dev.jsonl.gz"
WEIGHTS = {"match": 1.0, "format": 0.2, "function": 0.1}
REWARDS = """import json

def brevity(responses, prompts, answer):
    with open({log!r}, "a") as log:
        log.write(json.dumps([prompts, responses, answer]) + "\\n")
    return [-len(text) / 10 for text in responses]
"""


def logged(folder: Path) -> list[dict[str, float]]:
    """The metrics of each update."""
    rows = csv.DictReader((folder / "logs" / "ppo" / "metrics.csv").open())
    return [{name: float(value) for name, value in row.items() if value} for row in rows if row.get("objective/scores")]


def by_hand(response: str, answer: str) -> dict[str, float]:
    """The three scores without regular expressions."""
    marked = response.split("#### ")[-1].strip() if "#### " in response else ""
    number = marked.lstrip("-").replace(",", "").replace(".", "", 1)
    is_number = number.isdigit()
    right = is_number and float(marked.replace(",", "")) == float(answer.replace(",", ""))
    return {"match": float(right), "format": float(is_number), "function": -len(response) / 10}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> tuple[Path, Path]:
    """Twelve short problems of GSM8K, and the file of the function."""
    if not GSM8K.exists():
        pytest.skip("no gsm8k_tasks here")
    import gzip

    folder = tmp_path_factory.mktemp("gsm8k")
    with gzip.open(GSM8K, "rt") as lines:
        rows = list(map(json.loads, lines))
    short = sorted(rows, key=lambda row: len(row["prompt"]))[:12]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    (folder / "rewards.py").write_text(REWARDS.format(log=str(folder / "seen.jsonl")))
    return folder / "problems.jsonl", folder / "rewards.py"


@pytest.mark.parametrize("family", ["causal", "t5"])
def test_grpo_on_gsm8k_learns_from_the_sum_of_three_rewards(command, world, task, family):
    problems, rewards = task
    seen = problems.parent / "seen.jsonl"
    seen.unlink(missing_ok=True)
    model = world.tiny if family == "causal" else world.reader(family)
    outcome = command(
        "experiment=grpo_gsm8k", *world.sizes, *model, "logger=csv", f"task.prompts={problems}", "task.test_fraction=0.3",
        f"rollout_scorer.function.path={rewards}:brevity", "ppo.self_checks=false", "ppo.learning_rate=1e-3",
        *(["backbone.positions=512"] if family == "causal" else []),
    )  # fmt: skip
    assert outcome.code == 0, outcome.error
    calls = [json.loads(line) for line in seen.read_text().splitlines()]
    answers = {json.loads(line)["prompt"]: json.loads(line)["answer"] for line in problems.read_text().splitlines()}
    assert all(answer == answers[prompt] for call in calls for prompt, answer in zip(call[0], call[2], strict=True))
    # The held-out responses before, two updates, and those after.
    updates, held_out = [call for call in calls if len(call[1]) == 8], [call for call in calls if len(call[1]) == 4]
    metrics, result = logged(outcome.folder), outcome.result()["metrics"]
    assert len(metrics) == len(updates) == len(held_out) == 2
    for measured, (_, responses, rights) in zip(metrics, updates, strict=True):
        scores = [by_hand(response, right) for response, right in zip(responses, rights, strict=True)]
        for name in WEIGHTS:
            mean = sum(score[name] for score in scores) / len(scores)
            assert measured[f"objective/scores/{name}"] == pytest.approx(mean, abs=1e-6)
        total = sum(weight * sum(score[name] for score in scores) for name, weight in WEIGHTS.items()) / len(scores)
        assert measured["objective/scores"] == pytest.approx(total, abs=1e-6)
        assert measured["objective/rlhf_reward"] == pytest.approx(total, abs=1e-6)
    for when, (_, responses, _) in zip(("before", "after"), held_out, strict=True):
        assert result[f"score/function/{when}"] == pytest.approx(-sum(map(len, responses)) / 40, abs=1e-6)
    page = (outcome.folder / "report.html").read_text()
    assert "Score: match" in page
    assert "Score: function" in page
