"""Verdicts, thumbs, marked stretches and comments of real sets load by overrides alone, and say what a plain count finds."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from rlhf_lightning.feedback.format import comment, pairwise, spans, thumbs, verdict  # noqa: F401  (registers them)
from rlhf_lightning.feedback.reading import LoadedFeedback, read_feedback
from rlhf_lightning.feedback.source import jsonl  # noqa: F401
from rlhf_lightning.flow import Comment, Ranking, Spans, Thumbs
from rlhf_lightning.registry import build

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"


def rows(name: str) -> list[dict[str, Any]]:
    if not (DATA / name).exists():
        pytest.skip(f"the set {name} is not beside the repository")
    with gzip.open(DATA / name / "dev.jsonl.gz", "rb") as file:
        return [json.loads(line) for line in file]


def load(folder: Path, name: str, *overrides: str) -> LoadedFeedback:
    (folder / "menu.yaml").write_text("defaults:\n  - feedback_source: []\n  - feedback_format: []\n")
    source = ["feedback_source=[jsonl]", f"feedback_source.jsonl.path={(DATA / name).resolve()}"]
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("menu", overrides=[*source, *overrides])
    formats = [build(node) for node in config.feedback_format.values()]
    aside = {"on_bad": "quarantine", "quarantine": folder / "bad.jsonl"}
    return read_feedback(build(config.feedback_source.jsonl)(), formats, **aside)  # type: ignore[arg-type]


def test_votes_of_three_people(tmp_path: Path) -> None:
    plain = rows("pandalm_human")
    reading = load(tmp_path, "pandalm_human", "feedback_format=[verdict]", "feedback_source.jsonl.ignore_fields=[models]")
    good = [row for row in plain if row["response_1"].strip() and row["response_2"].strip()]
    assert (len(plain), reading.bad) == (714, len(plain) - len(good))
    meaning = {0: (0, 0), 1: (0, 1), 2: (1, 0)}
    expected = [(row["response_1"], f"rater{i}", meaning[vote]) for row in good for i, vote in enumerate(row["votes"])]
    found = [(r.responses[0], r.annotator, r.judgement.ranks) for r in reading.feedback if isinstance(r.judgement, Ranking)]
    assert found == expected


def test_texts_judged_by_themselves(tmp_path: Path) -> None:
    plain = rows("surge_toxicity")
    names = {"prompt": "null", "response": "text", "label": "toxic", "up": "[false]", "down": "[true]"}
    settings = [f"feedback_format.thumbs.{name}={value}" for name, value in names.items()]
    reading = load(tmp_path, "surge_toxicity", "feedback_format=[thumbs]", *settings)
    judged = [(r.prompt, r.responses[0], r.judgement.up) for r in reading.feedback if isinstance(r.judgement, Thumbs)]
    assert judged == [("", row["text"], not row["toxic"]) for row in plain]
    assert reading.bad == 0


@pytest.mark.parametrize(("name", "label"), [("gsm8k_model_solutions", "correct"), ("humaneval_codegen_samples", "passed")])
def test_right_and_wrong_answers(name: str, label: str, tmp_path: Path) -> None:
    answers = [answer for row in rows(name) for answer in row["responses"]]
    names = {"response": "responses.text", "label": f"responses.{label}", "model": "responses.system"}
    settings = [f"feedback_format.thumbs.{setting}={value}" for setting, value in names.items()]
    reading = load(tmp_path, name, "feedback_format=[thumbs]", "feedback_source.jsonl.explode=[responses]", *settings)
    good = [answer for answer in answers if answer["text"].strip()]
    judged = [(r.responses[0], r.judgement.up) for r in reading.feedback if isinstance(r.judgement, Thumbs)]
    assert judged == [(answer["text"], answer[label]) for answer in good]
    assert reading.bad == len(answers) - len(good)
    assert [r.models for r in reading.feedback] == [(answer["system"],) if "system" in answer else None for answer in good]


def test_marked_errors_of_three_raters(tmp_path: Path) -> None:
    answers = [answer for row in rows("wmt_mqm_ranking") for answer in row["responses"]]
    names = {"response": "responses.text", "spans": "responses.errors", "model": "responses.system", "rater": "rater"}
    names |= {"value": "severity", "values": "{Major:-1,Minor:-0.3}", "label": "category", "unclear": "first"}
    names["raters"] = "[rater0,rater1,rater2]"
    settings = [f"feedback_format.spans.{setting}={value}" for setting, value in names.items()]
    reading = load(tmp_path, "wmt_mqm_ranking", "feedback_format=[spans]", "feedback_source.jsonl.explode=[responses]", *settings)
    assert Counter(r.annotator for r in reading.feedback) == {f"rater{i}": len(answers) for i in range(3)}
    assert reading.bad == 0
    worth = {"Major": -1.0, "Minor": -0.3}
    marks = [(e["rater"], a["text"], e) for a in answers for e in a["errors"] if e["span"] and e["span"] in a["text"]]
    expected = Counter((f"rater{who}", text, e["span"], worth[e["severity"]], e["category"]) for who, text, e in marks)
    found = Counter(
        (r.annotator, r.responses[0], r.responses[0][span.start : span.end], span.value, span.label)
        for r in reading.feedback
        if isinstance(r.judgement, Spans)
        for span in r.judgement.spans
    )
    assert found == expected
    assert len(marks) > 20_000


def test_comments_on_stretches(tmp_path: Path) -> None:
    reviews = [(a["text"], review) for row in rows("squality_human_eval") for a in row["responses"] for review in a["reviews"]]
    names = {"response": "responses.text", "comment": "responses.reviews.comments", "text": "comment", "unclear": "first"}
    names |= {"empty": "skip", "annotator": "responses.reviews.reviewer", "model": "responses.system"}
    settings = [f"feedback_format.comment.{setting}={value}" for setting, value in names.items()]
    per_annotator = "feedback_source.jsonl.explode=[responses,responses.reviews]"
    reading = load(tmp_path, "squality_human_eval", "feedback_format=[comment]", per_annotator, *settings)
    expected = [
        (review["reviewer"], c["comment"], c["span"] if c["span"] and c["span"] in text else None)
        for text, review in reviews
        for c in review["comments"]
        if c["comment"].strip()
    ]
    found = [
        (r.annotator, r.judgement.text, None if r.judgement.start is None else r.responses[0][r.judgement.start : r.judgement.end])
        for r in reading.feedback
        if isinstance(r.judgement, Comment)
    ]
    assert found == expected
    assert (len(found), reading.bad) == (1358, 0)


def test_pairs_with_their_systems(tmp_path: Path) -> None:
    plain = rows("wmt_mqm_pairs")
    settings = ["feedback_format=[pairwise]", "feedback_format.pairwise.models=systems"]
    reading = load(tmp_path, "wmt_mqm_pairs", *settings)
    assert [r.models for r in reading.feedback] == [tuple(row["systems"]) for row in plain]
