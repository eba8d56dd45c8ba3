"""Real sets load by overrides alone, with every record that a plain count finds."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from rlhf_lightning.feedback.filter import contradictions, duplicates, encoding, identical  # noqa: F401  (registers them)
from rlhf_lightning.feedback.format import edit, pairwise, ranking, rating  # noqa: F401
from rlhf_lightning.feedback.reading import Reading, read_feedback
from rlhf_lightning.feedback.source import jsonl
from rlhf_lightning.flow import Ranking, Rating
from rlhf_lightning.registry import build

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def plain(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name / "dev.jsonl.gz", "rb") as file:
        return [json.loads(line) for line in file]


def load(folder: Path, name: str, *overrides: str) -> Reading:
    if not (DATA / name).exists():
        pytest.skip(f"the set {name} is not beside the repository")
    (folder / "menu.yaml").write_text("defaults:\n  - feedback_source: null\n  - feedback_format: []\n")
    source = ["feedback_source=jsonl", f"feedback_source.path={(DATA / name).resolve()}"]
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("menu", overrides=[*source, *overrides])
    return read_feedback(build(config.feedback_source)(), [build(node) for node in config.feedback_format.values()])


def test_hh_harmless(tmp_path: Path) -> None:
    reading = load(tmp_path, "hh_harmless", "feedback_format=[pairwise]")
    rows = plain("hh_harmless")
    assert [(r.prompt, r.responses) for r in reading.feedback] == [(r["prompt"], (r["chosen"], r["rejected"])) for r in rows]
    assert (len(rows), reading.bad, reading.notes) == (1834, 0, [])


def test_hh_harmless_as_it_is_published(tmp_path: Path) -> None:
    """Whole dialogues without a prompt come apart where the set's own prompt ends."""
    if not (DATA / "hh_harmless").exists():
        pytest.skip("the set hh_harmless is not beside the repository")
    rows = plain("hh_harmless")
    file = tmp_path / "hh.jsonl"
    joined = [{side: f"{row['prompt']} {row[side]}" for side in ("chosen", "rejected")} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in joined))
    found = read_feedback(jsonl.jsonl(path=str(file)), [pairwise.PairwiseFormat()]).feedback
    same = sum(
        r.prompt == row["prompt"] and r.responses == (row["chosen"].strip(), row["rejected"].strip())
        for r, row in zip(found, rows, strict=True)
    )
    assert same == len(rows)


def test_mlqe_edits_and_ratings_of_one_row(tmp_path: Path) -> None:
    reading = load(
        tmp_path,
        "mlqe_pe_edit_rating",
        "feedback_format=[edit,rating]",
        "feedback_format.edit.edited=edited",
        "feedback_format.rating.ratings=ratings",
        "feedback_format.rating.scale=[0,100]",
    )
    rows = plain("mlqe_pe_edit_rating")
    kinds = Counter(record.judgement.kind for record in reading.feedback)
    assert kinds == {"edit": 20_000, "rating": sum(len(row["ratings"] or []) for row in rows)}
    values = [r.judgement.value for r in reading.feedback if isinstance(r.judgement, Rating)]
    assert values == [float(value) for row in rows for value in row["ratings"] or []]
    assert "hter" in reading.notes[0]


def test_oasst_rankings(tmp_path: Path) -> None:
    reading = load(tmp_path, "oasst_rankings", "feedback_format=[ranking]")
    rows = plain("oasst_rankings")
    assert len(reading.feedback) == 158
    assert sum(len(record.responses) for record in reading.feedback) == 474
    for record, row in zip(reading.feedback, rows, strict=True):
        assert isinstance(record.judgement, Ranking)
        best = min(row["responses"], key=lambda response: response["rank"])["text"]
        assert record.responses[record.judgement.ranks.index(0)] == best


def test_scores_of_three_raters_are_three_rankings(tmp_path: Path) -> None:
    reading = load(tmp_path, "wmt_mqm_ranking", "feedback_format=[ranking]", "feedback_format.ranking.score_field=scores")
    assert Counter(record.annotator for record in reading.feedback) == {f"rater{i}": 337 for i in range(3)}


@pytest.mark.parametrize(
    ("name", "overrides", "count"),
    [
        ("wmt_mqm_pairs", ["feedback_format=[pairwise]"], 9605),
        ("squality_human_eval", ["feedback_format=[ranking]", "feedback_format.ranking.score_field=mean_overall"], 75),
        ("gsm8k_model_solutions", ["feedback_format=[ranking]", "feedback_format.ranking.score_field=correct"], 1055),
        (
            "usr_topicalchat_ratings",
            [
                "feedback_format=[rating]",
                "feedback_format.rating.rating=ratings.overall",
                "feedback_format.rating.ratings=null",
                "feedback_format.rating.scale=[0,5]",
            ],
            216,
        ),
        (
            "vader_sentiment_ratings",
            [
                "feedback_format=[rating]",
                "feedback_format.rating.ratings=null",
                "feedback_format.rating.scale=[-4,4]",
                "feedback_source.limit=2000",
            ],
            2000,
        ),
    ],
)
def test_other_sets(name: str, overrides: list[str], count: int, tmp_path: Path) -> None:
    assert len(load(tmp_path, name, *overrides).feedback) == count
