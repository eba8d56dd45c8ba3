"""stage=inspect by its command: what it counts, measures and leaves; several sources with weights; bad lines aside."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rlhf_lightning.flow import Feedback


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def records(folder: Path) -> list[Feedback]:
    return [Feedback.model_validate_json(line) for line in (folder / "feedback.jsonl").read_text().splitlines()]


def judged_by_six(tmp_path: Path) -> Path:
    """Pairs of which five annotators find the longer text better, and one answers by a coin."""
    rng = random.Random(0)
    rows: list[dict[str, object]] = []
    for number in range(60):
        good, bad = f"answer {number} " + "very good " * rng.randint(2, 4), f"answer {number}"
        for who in range(6):
            right = who < 5 or rng.random() < 0.5
            chosen, rejected = (good, bad) if right else (bad, good)
            rows.append({"prompt": f"question {number}", "chosen": chosen, "rejected": rejected, "annotator": f"person {who}"})
    return write(tmp_path / "pairs.jsonl", rows)


def test_it_finds_who_answers_at_random_and_says_so_everywhere(command, tmp_path):
    file = judged_by_six(tmp_path)
    words = ["logger=none", "feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]"]
    outcome = command("stage=inspect", *words)
    assert outcome.code == 0, outcome.error
    quality = json.loads((outcome.folder / "quality.json").read_text())["overall"]
    reliability = {person["name"]: person["combined"] for person in quality["annotators"]}
    assert min(reliability, key=reliability.get) == "person 5"
    assert reliability["person 5"] < 0.5 < reliability["person 0"]
    assert quality["agreement"][0]["alpha"] < 0.95
    assert quality["bias"]["longer_wins"]["low"] > 0.5
    page = (outcome.folder / "report.html").read_text()
    for text in (outcome.out, page):
        assert "person 5" in text
        assert "Krippendorff" in text
    assert "Judgements that are probably wrong" in page
    assert outcome.result()["objective"] == len(records(outcome.folder)) == 360


def test_sources_of_several_kinds_are_mixed_with_weights(command, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    more = write(tmp_path / "more.jsonl", [{"prompt": "q", "chosen": "c", "rejected": "d"}])
    stars = tmp_path / "stars.csv"
    stars.write_text("prompt,response,rating\nr,e,4\n")
    outcome = command(
        "stage=inspect", "logger=none", "feedback_source=[jsonl,csv]", f"feedback_source.jsonl.path=[{pairs},{more}]",
        "feedback_source.jsonl.weight=[1,0.5]", f"feedback_source.csv.path={stars}", "feedback_source.csv.numbers=[rating]",
        "feedback_source.csv.name=stars", "feedback_source.csv.weight=2", "feedback_format=[pairwise,rating]",
        "feedback_format.rating.scale=[1,5]",
    )  # fmt: skip
    assert outcome.code == 0, outcome.error
    found = [(r.judgement.kind, r.weight, r.source, Path(r.origin or "").name) for r in records(outcome.folder)]
    assert found == [
        ("ranking", 1.0, None, "pairs.jsonl:1"),
        ("ranking", 0.5, None, "more.jsonl:1"),
        ("rating", 2.0, "stars", "stars.csv:2"),
    ]


def test_what_a_filter_took_out_stands_on_the_page_and_in_the_report(command, tmp_path):
    row = {"prompt": "p", "chosen": "schÃ¶n", "rejected": "b"}
    file = write(tmp_path / "pairs.jsonl", [row, row, {"prompt": "p", "chosen": "a", "rejected": "a"}])
    outcome = command("stage=inspect", "logger=none", "feedback_source=jsonl", f"feedback_source.jsonl.path={file}")
    assert outcome.code == 0, outcome.error
    report = json.loads((outcome.folder / "report.json").read_text())
    (table,) = [table for table in report["tables"] if table["part"] == "Cleaning"]
    done = {(row[0], row[1]): (row[3], [Path(place).name for place in str(row[4]).split(", ")]) for row in table["rows"]}
    assert done == {
        ("encoding", "changed"): (2, ["pairs.jsonl:1", "pairs.jsonl:2"]),
        ("identical", "removed"): (1, ["pairs.jsonl:3"]),
        ("duplicates", "removed"): (1, ["pairs.jsonl:2"]),
    }
    assert report["feedback"] == [{"kind": "pair", "collected": 3, "remaining": 1, "note": ""}]
    assert [r.responses[0] for r in records(outcome.folder)] == ["schön"]


def test_bad_lines_leave_nothing_or_stand_aside(command, tmp_path):
    file = write(
        tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "", "rejected": "b"}]
    )
    words = ["stage=inspect", "logger=none", "feedback_source=jsonl", f"feedback_source.jsonl.path={file}"]
    refused = command(*words)
    assert refused.code == 2
    assert "pairs.jsonl:2: chosen is empty text" in refused.error
    assert not list(refused.folder.glob("*feedback*"))
    aside = command(*words, "feedback.on_bad=quarantine")
    assert aside.code == 0, aside.error
    assert len(records(aside.folder)) == 1
    (bad,) = (aside.folder / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(bad)["reason"] == "chosen is empty text"


def test_no_source_is_named(command):
    outcome = command("stage=inspect")
    assert outcome.code == 2
    assert "feedback_source=..." in outcome.error
    for name in ("csv", "hub", "json", "jsonl"):
        assert name in outcome.error
