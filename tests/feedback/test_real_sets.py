"""Real sets load by the overrides of docs/data_sets.md alone, with every record that a plain count finds."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from rlhf_lightning.feedback import settings  # noqa: F401  (registers the section)
from rlhf_lightning.feedback.format import (  # noqa: F401  (registers them)
    attributes,
    comment,
    edit,
    oasst,
    pairwise,
    ranking,
    rating,
    spans,
    thumbs,
    verdict,
)
from rlhf_lightning.feedback.reading import LoadedFeedback, read_feedback
from rlhf_lightning.feedback.source import jsonl
from rlhf_lightning.flow import Comment, Ranking, Rating, Spans, Thumbs
from rlhf_lightning.registry import build

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / ".." / "shared" / "data"
TABLE = ROOT / "docs" / "data_sets.md"
if not TABLE.exists():
    pytest.skip("docs/data_sets.md is not shipped with the tests", allow_module_level=True)
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """A line of the table: the set, its overrides, and how many records of each kind there are."""

    name: str
    overrides: list[str]
    counts: dict[str, int]

    def __str__(self) -> str:
        return f"{self.name}-{'-'.join(self.counts)}"


def table() -> list[Line]:
    lines = re.findall(r"^\| (\w+) \| `(.+)` \| ([\w, ]+) \| ([\d, ]+) \|", TABLE.read_text(), re.MULTILINE)
    return [
        Line(name, shlex.split(overrides), dict(zip(kinds.split(", "), map(int, counts.split(", ")), strict=True)))
        for name, overrides, kinds, counts in lines
    ]


LINES = {str(line): line for line in table()}


def plain(name: str) -> Rows:
    with gzip.open(DATA / name / "dev.jsonl.gz", "rb") as file:
        return [json.loads(line) for line in file]


def load(folder: Path, line: str, *more: str) -> LoadedFeedback:
    """The reading of a line of the table."""
    name = LINES[line].name
    if not (DATA / name).exists():
        pytest.skip(f"the set {name} is not beside the repository")
    groups = "\n".join(f"  - {group}" for group in ("feedback_source: []", "feedback_format: []", "section/feedback@feedback"))
    (folder / "menu.yaml").write_text(f"defaults:\n{groups}\n")
    source = ["feedback_source=jsonl", f"feedback_source.jsonl.path={(DATA / name).resolve()}"]
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("menu", overrides=[*source, *LINES[line].overrides, *more])
    formats = [build(node) for node in config.feedback_format.values()]
    return read_feedback(
        build(config.feedback_source.jsonl)(), formats, on_bad=config.feedback.on_bad, quarantine=folder / "quarantine.jsonl"
    )


def responses(rows: Rows) -> Rows:
    return [response for row in rows for response in row["responses"]]


def reviews(rows: Rows) -> Rows:
    return [review for response in responses(rows) for review in response["reviews"]]


PLAIN: dict[str, Callable[[Rows], dict[str, int]]] = {
    "hh_harmless-ranking": lambda rows: {"ranking": len(rows)},
    "pandalm_human-ranking": lambda rows: {
        "ranking": sum(len(row["votes"]) for row in rows if row["response_1"].strip() and row["response_2"].strip())
    },
    "wmt_mqm_pairs-ranking": lambda rows: {"ranking": len(rows)},
    "gsm8k_pairs-ranking": lambda rows: {"ranking": len(rows)},
    "oasst_rankings-ranking": lambda rows: {"ranking": len(rows)},
    "oasst_tree_sample-ranking": lambda rows: {"ranking": len(plain("oasst_rankings"))},
    "wmt_mqm_ranking-ranking": lambda rows: {"ranking": sum(len(row["responses"][0]["scores"]) for row in rows)},
    "wmt_mqm_ranking-spans": lambda rows: {"spans": sum(len(response["scores"]) for response in responses(rows))},
    "rankme_nlg_ranking-ranking": lambda rows: {"ranking": sum(len(row["responses"][0]["ratings"]["quality"]) for row in rows)},
    "rankme_nlg_ranking-rating": lambda rows: {"rating": sum(len(given) for r in responses(rows) for given in r["ratings"].values())},
    "squality_human_eval-ranking": lambda rows: {"ranking": sum(len(row["responses"][0]["reviews"]) for row in rows)},
    "squality_human_eval-rating-comment": lambda rows: {
        "rating": 3 * len(reviews(rows)),
        "comment": sum(bool(said["comment"].strip()) for review in reviews(rows) for said in review["comments"]),
    },
    "scitldr_human_ranking-ranking": lambda rows: {"ranking": len(rows)},
    "scitldr_human_ranking-rating": lambda rows: {"rating": 6 * len(responses(rows))},
    "usr_topicalchat_ratings-rating": lambda rows: {"rating": sum(len(row["ratings"]) for row in rows)},
    "mlqe_pe_edit_rating-edit-rating": lambda rows: {"edit": len(rows), "rating": sum(len(row["ratings"] or []) for row in rows)},
    "vader_sentiment_ratings-rating": lambda rows: {"rating": sum(len(row["ratings"]) for row in rows)},
    "topical_chat_turn_ratings-rating": lambda rows: {"rating": len(rows)},
    "gsm8k_model_solutions-ranking": lambda rows: {"ranking": len(rows)},
    "gsm8k_model_solutions-thumbs": lambda rows: {"thumbs": len(responses(rows))},
    "humaneval_codegen_samples-thumbs": lambda rows: {"thumbs": sum(bool(response["text"].strip()) for response in responses(rows))},
    "surge_toxicity-thumbs": lambda rows: {"thumbs": len(rows)},
}


def test_every_line_of_the_table_is_counted() -> None:
    assert set(LINES) == set(PLAIN)


@pytest.mark.parametrize("line", [pytest.param(name, marks=pytest.mark.full if "vader" in name else ()) for name in LINES])
def test_every_record_is_read(line: str, tmp_path: Path) -> None:
    reading = load(tmp_path, line)
    kinds = Counter(record.judgement.kind for record in reading.feedback)
    assert kinds == LINES[line].counts == PLAIN[line](plain(LINES[line].name))
    aside = tmp_path / "quarantine.jsonl"
    reasons = [json.loads(bad)["reason"] for bad in aside.read_text().splitlines()] if aside.exists() else []
    assert len(reasons) == reading.bad
    assert all(re.search("is (empty|blank) text$", reason) for reason in reasons)


def test_pairs_of_hh_harmless(tmp_path: Path) -> None:
    reading = load(tmp_path, "hh_harmless-ranking")
    assert [(r.prompt, r.responses) for r in reading.feedback] == [
        (r["prompt"], (r["chosen"], r["rejected"])) for r in plain("hh_harmless")
    ]
    assert (reading.bad, reading.notes) == (0, [])


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


def test_votes_of_pandalm(tmp_path: Path) -> None:
    found = load(tmp_path, "pandalm_human-ranking").feedback
    votes = Counter(
        vote for row in plain("pandalm_human") if row["response_1"].strip() and row["response_2"].strip() for vote in row["votes"]
    )
    ranks = Counter(r.judgement.ranks for r in found if isinstance(r.judgement, Ranking))
    assert ranks == {(0, 0): votes[0], (0, 1): votes[1], (1, 0): votes[2]}


def test_mlqe_edits_and_ratings_of_one_row(tmp_path: Path) -> None:
    reading = load(tmp_path, "mlqe_pe_edit_rating-edit-rating", "feedback_source.jsonl.limit=2000")
    values = [r.judgement.value for r in reading.feedback if isinstance(r.judgement, Rating)]
    assert values == [float(value) for row in plain("mlqe_pe_edit_rating")[:2000] for value in row["ratings"] or []]
    assert "hter" in reading.notes[0]


def test_the_best_of_oasst_rankings(tmp_path: Path) -> None:
    for record, row in zip(load(tmp_path, "oasst_rankings-ranking").feedback, plain("oasst_rankings"), strict=True):
        assert isinstance(record.judgement, Ranking)
        best = min(row["responses"], key=lambda response: response["rank"])["text"]
        assert record.responses[record.judgement.ranks.index(0)] == best


def test_oasst_trees_and_rankings_are_the_same(tmp_path: Path) -> None:
    """The rankings were drawn from the trees; unranked replies, which the rankings leave out, are in the trees' alone."""

    def said(line: str) -> Counter[tuple[str, frozenset[tuple[str, int]]]]:
        judged = [(record, record.judgement) for record in load(tmp_path, line).feedback]
        places = [(r.prompt_text, zip(r.responses, j.ranks, strict=True)) for r, j in judged if isinstance(j, Ranking)]
        return Counter((prompt, frozenset((text, rank) for text, rank in pairs if rank is not None)) for prompt, pairs in places)

    assert said("oasst_tree_sample-ranking") == said("oasst_rankings-ranking")


def test_scores_of_three_raters_are_three_rankings(tmp_path: Path) -> None:
    found = load(tmp_path, "wmt_mqm_ranking-ranking").feedback
    assert Counter(record.annotator for record in found) == {f"rater{i}": 337 for i in range(3)}
    first = plain("wmt_mqm_ranking")[0]["responses"]
    assert found[0].models == tuple(response["system"] for response in first)


def test_marked_spans_stand_where_their_text_is(tmp_path: Path) -> None:
    found = load(tmp_path, "wmt_mqm_ranking-spans").feedback
    marked = [r.responses[0][s.start : s.end] for r in found if isinstance(r.judgement, Spans) for s in r.judgement.spans]
    texts = [(r["text"], error["span"]) for r in responses(plain("wmt_mqm_ranking")) for error in r["errors"]]
    assert Counter(marked) == Counter(span for text, span in texts if span and span in text)


def test_reviewers_of_squality_are_named(tmp_path: Path) -> None:
    found = load(tmp_path, "squality_human_eval-ranking").feedback
    ranks = [r.judgement.ranks for r in found if isinstance(r.judgement, Ranking)]
    expected = [
        (row["responses"][0]["reviews"][i]["reviewer"], tuple(r["reviews"][i]["overall_rank"] - 1 for r in row["responses"]))
        for row in plain("squality_human_eval")
        for i in range(3)
    ]
    assert list(zip([r.annotator for r in found], ranks, strict=True)) == expected


def test_ratings_and_comments_of_squality(tmp_path: Path) -> None:
    found = load(tmp_path, "squality_human_eval-rating-comment").feedback
    ratings = [
        (r.annotator, r.judgement.value) for r in found if isinstance(r.judgement, Rating) and r.judgement.aspect == "overall_rating"
    ]
    all_reviews = reviews(plain("squality_human_eval"))
    assert ratings == [(review["reviewer"], review["overall_rating"]) for review in all_reviews]
    said = [r.judgement.text for r in found if isinstance(r.judgement, Comment)]
    assert said == [c["comment"] for review in all_reviews for c in review["comments"] if c["comment"].strip()]


def test_attributes_of_usr(tmp_path: Path) -> None:
    found = load(tmp_path, "usr_topicalchat_ratings-rating").feedback
    given = [(r.judgement.aspect, r.judgement.value) for r in found if isinstance(r.judgement, Rating)]
    assert given == [pair for row in plain("usr_topicalchat_ratings") for pair in row["ratings"].items()]


def test_toxic_is_thumbs_down(tmp_path: Path) -> None:
    found = load(tmp_path, "surge_toxicity-thumbs").feedback
    assert {record.prompt for record in found} == {""}
    ups = [r.judgement.up for r in found if isinstance(r.judgement, Thumbs)]
    assert ups == [not row["toxic"] for row in plain("surge_toxicity")]


def test_turns_of_topical_chat(tmp_path: Path) -> None:
    found = load(tmp_path, "topical_chat_turn_ratings-rating", "feedback_source.jsonl.limit=500").feedback
    turns = [(r.judgement.turn, r.judgement.value) for r in found if isinstance(r.judgement, Rating)]
    assert turns == [(row["turn"], row["rating"]) for row in plain("topical_chat_turn_ratings")[:500]]


def test_raters_of_vader(tmp_path: Path) -> None:
    found = load(tmp_path, "vader_sentiment_ratings-rating", "feedback_source.jsonl.limit=2000").feedback
    values = [r.judgement.value for r in found if isinstance(r.judgement, Rating)]
    assert values == [value for row in plain("vader_sentiment_ratings")[:2000] for value in row["ratings"]]
