"""What `look` proposes for files as people and tools write them; every file is made here, after public descriptions."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.feedback.proposal.propose import Proposal, propose

SUBJECTS = ["lamp", "boat", "garden", "clock", "river", "engine", "bridge", "violin", "cloud", "market", "kettle", "forest"]
PROMPTS = [f"What is a {subject} good for in daily life?" for subject in SUBJECTS]
GOOD = [f"A {subject} helps people every day, and it lasts for years." for subject in SUBJECTS]
POOR = [f"I do not know anything useful on the {subject}." for subject in SUBJECTS]
FINE = [f"Well, the {subject} is fine for most of us, I think." for subject in SUBJECTS]
N = len(SUBJECTS)


def table(rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    """A CSV file as a spreadsheet writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def rows(make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    return [make(i) for i in range(N)]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


FILES: dict[str, tuple[str, bytes, str, dict[str, Any]]] = {
    # Spreadsheets
    "stars": (
        "a.csv",
        table(rows(lambda i: {"Question": PROMPTS[i], "Answer": GOOD[i], "Stars": 1 + i % 5})),
        "rating",
        {"prompt": "Question", "response": "Answer", "rating": "Stars", "scale": (1, 5)},
    ),
    "a column per rater": (
        "b.csv",
        table(rows(lambda i: {"prompt": PROMPTS[i], "response": GOOD[i], "Ada": 1 + i % 5, "Ben": "" if i % 3 else 4, "Cleo": 5 - i % 5})),
        "rating",
        {"raters": ("Ada", "Ben", "Cleo"), "scale": (1, 5)},
    ),
    "numbered raters": (
        "c.csv",
        table(rows(lambda i: {"item": i, "source": PROMPTS[i], "output": GOOD[i], "rater_1": 1 + i % 7, "rater_2": 7 - i % 7})),
        "rating",
        {"raters": ("rater_1", "rater_2"), "scale": (1, 7), "prompt": "source", "response": "output"},
    ),
    "German Excel": (
        "d.csv",
        table(rows(lambda i: {"Frage": PROMPTS[i] + " ä", "Antwort": GOOD[i] + " ü", "Bewertung": f"{1 + i % 4},5"}), ";", "cp1252"),
        "rating",
        {"prompt": "Frage", "response": "Antwort", "rating": "Bewertung", "scale": (1, 5)},
    ),
    "Unicode text of Excel": (
        "e.csv",
        table(rows(lambda i: {"prompt": PROMPTS[i], "response": GOOD[i], "rating": i % 11}), "\t", "utf-16"),
        "rating",
        {"rating": "rating", "scale": (0, 10)},
    ),
    "A or B": (
        "f.csv",
        table(rows(lambda i: {"prompt": PROMPTS[i], "response_a": GOOD[i], "response_b": POOR[i], "preferred": "ABA"[i % 3]})),
        "verdict",
        {"first": "response_a", "second": "response_b", "verdict": "preferred", "first_wins": ("A",), "second_wins": ("B",)},
    ),
    "left, right, tie": (
        "g.tsv",
        table(rows(lambda i: {"question": PROMPTS[i], "left": GOOD[i], "right": POOR[i], "choice": ["left", "right", "tie"][i % 3]}), "\t"),
        "verdict",
        {"first": "left", "second": "right", "first_wins": ("left",), "second_wins": ("right",), "tie": ("tie",)},
    ),
    "a form's export": (
        "h.csv",
        table(
            rows(
                lambda i: {
                    "Timestamp": f"{1 + i}.03.2025 12:{10 + i}:00",
                    "Email": f"p{i % 3}@example.org",
                    "Prompt": PROMPTS[i],
                    "Model response": GOOD[i],
                    "How good is the response? Rating": 1 + i % 5,
                }
            )
        ),
        "rating",
        {"prompt": "Prompt", "response": "Model response", "annotator": "Email", "scale": (1, 5)},
    ),
    "crowd work": (
        "i.csv",
        table(
            rows(
                lambda i: {
                    "HITId": f"3X{i:04d}",
                    "WorkerId": f"W{i % 4}",
                    "WorkTimeInSeconds": 20 + i,
                    "Input.prompt": PROMPTS[i],
                    "Input.response": GOOD[i],
                    "Answer.rating": 1 + i % 5,
                }
            )
        ),
        "rating",
        {"prompt": "Input.prompt", "response": "Input.response", "rating": "Answer.rating", "annotator": "WorkerId"},
    ),
    "post-edits": (
        "j.tsv",
        table(rows(lambda i: {"src": PROMPTS[i], "mt": GOOD[i], "pe": GOOD[i].replace("people", "all of us"), "hter": 0.2}), "\t"),
        "edit",
        {"prompt": "src", "response": "mt", "edited": "pe"},
    ),
    "wide ranks": (
        "k.csv",
        table(
            rows(
                lambda i: {
                    "prompt": PROMPTS[i],
                    "answer1": GOOD[i],
                    "answer2": POOR[i],
                    "answer3": FINE[i],
                    "rank1": 1 + i % 3,
                    "rank2": 1 + (i + 1) % 3,
                    "rank3": 1 + (i + 2) % 3,
                }
            )
        ),
        "ranking",
        {"responses": ("answer1", "answer2", "answer3"), "ranks": ("rank1", "rank2", "rank3"), "ranks_are": "places"},
    ),
    "an order in words": (
        "l.csv",
        table(
            rows(
                lambda i: {
                    "prompt": PROMPTS[i],
                    "response_a": GOOD[i],
                    "response_b": POOR[i],
                    "response_c": FINE[i],
                    "ranking": ["A > C > B", "C > A = B"][i % 2],
                }
            )
        ),
        "ranking",
        {"responses": ("response_a", "response_b", "response_c"), "ranks": "ranking", "ranks_are": "order"},
    ),
    "aspects": (
        "m.csv",
        table(
            rows(
                lambda i: {
                    "prompt": PROMPTS[i],
                    "response": GOOD[i],
                    "fluency": 1 + i % 5,
                    "relevance": 5 - i % 5,
                    "annotator": f"a{i % 3}",
                }
            )
        ),
        "attributes",
        {"aspects": ("fluency", "relevance"), "scale": (1, 5), "annotator": "annotator"},
    ),
    "yes and no": (
        "n.csv",
        table(rows(lambda i: {"prompt": PROMPTS[i], "completion": GOOD[i], "helpful": ["Yes", "No"][i % 2]})),
        "thumbs",
        {"label": "helpful", "up": ("Yes",), "down": ("No",), "response": "completion"},
    ),
    "toxic or not": (
        "o.csv",
        table(rows(lambda i: {"id": i, "comment_text": GOOD[i], "toxic": i % 2})),
        "thumbs",
        {"label": "toxic", "up": (0,), "down": (1,), "response": "comment_text", "prompt": None},
    ),
    "Python's booleans": (
        "p.csv",
        table(rows(lambda i: {"prompt": PROMPTS[i], "response": GOOD[i], "is_correct": i % 2 == 0})),
        "thumbs",
        {"label": "is_correct", "up": (True,), "down": (False,)},
    ),
    "chosen and rejected": ("q.csv", table(rows(lambda i: {"prompt": PROMPTS[i], "chosen": GOOD[i], "rejected": POOR[i]})), "pairwise", {}),
    "two scores": (
        "r.csv",
        table(
            rows(lambda i: {"prompt": PROMPTS[i], "response_1": GOOD[i], "score_1": i % 6, "response_2": POOR[i], "score_2": (i + 2) % 6})
        ),
        "ranking",
        {"responses": ("response_1", "response_2"), "ranks": ("score_1", "score_2"), "ranks_are": "scores"},
    ),
    # Chats
    "a thumb on a chat": (
        "s.jsonl",
        lines(
            rows(
                lambda i: {
                    "conversation_id": f"c{i}",
                    "messages": turns(PROMPTS[i], GOOD[i], "Thanks!"),
                    "feedback": ["thumbs_up", "thumbs_down"][i % 2],
                }
            )
        ),
        "thumbs",
        {"messages": "messages", "label": "feedback", "up": ("thumbs_up",), "down": ("thumbs_down",)},
    ),
    "an emoji": (
        "t.jsonl",
        lines(rows(lambda i: {"messages": turns(PROMPTS[i], GOOD[i]), "reaction": ["👍", "👎"][i % 2]})),
        "thumbs",
        {"messages": "messages", "label": "reaction", "up": ("👍",), "down": ("👎",)},
    ),
    "1 and -1": (
        "u.json",
        array(rows(lambda i: {"messages": turns(PROMPTS[i], GOOD[i]), "vote": [1, -1, 0][i % 3]})),
        "thumbs",
        {"label": "vote", "up": (1,), "down": (-1,), "skip": (0,)},
    ),
    "ShareGPT with a rating": (
        "v.json",
        array(
            rows(
                lambda i: {
                    "id": str(i),
                    "conversations": [{"from": "human", "value": PROMPTS[i]}, {"from": "gpt", "value": GOOD[i]}],
                    "rating": 1 + i % 5,
                }
            )
        ),
        "rating",
        {"messages": "conversations", "rating": "rating", "scale": (1, 5)},
    ),
    "thumbs on messages": (
        "w.jsonl",
        lines(
            rows(
                lambda i: {
                    "messages": [{"role": "user", "content": PROMPTS[i]}, {"role": "assistant", "content": GOOD[i], "liked": i % 2 == 0}]
                }
            )
        ),
        "dialogue",
        {"messages": "messages", "thumbs": "liked"},
    ),
    "preferred outputs": (
        "x.jsonl",
        lines(
            rows(
                lambda i: {
                    "input": {"messages": turns(PROMPTS[i])},
                    "preferred_output": [{"role": "assistant", "content": GOOD[i]}],
                    "non_preferred_output": [{"role": "assistant", "content": POOR[i]}],
                }
            )
        ),
        "pairwise",
        {"prompt": "input.messages", "chosen": "preferred_output", "rejected": "non_preferred_output"},
    ),
    "logs with scores": (
        "y.jsonl",
        lines(
            rows(lambda i: {"input": PROMPTS[i], "output": GOOD[i], "user_feedback": {"score": i % 2, "key": "user"}, "latency": 1.5 + i})
        ),
        "thumbs",
        {"prompt": "input", "response": "output", "label": "user_feedback.score"},
    ),
    # Public sets' shapes
    "TRL pairs of messages": (
        "z.jsonl",
        lines(rows(lambda i: {"chosen": turns(PROMPTS[i], GOOD[i]), "rejected": turns(PROMPTS[i], POOR[i])})),
        "pairwise",
        {},
    ),
    "TRL unpaired": (
        "aa.jsonl",
        lines(rows(lambda i: {"prompt": PROMPTS[i], "completion": GOOD[i], "label": i % 2 == 0})),
        "thumbs",
        {"response": "completion", "label": "label"},
    ),
    "HH": (
        "ab.jsonl.gz",
        gzip.compress(
            lines(
                rows(
                    lambda i: {
                        "chosen": f"\n\nHuman: {PROMPTS[i]}\n\nAssistant: {GOOD[i]}",
                        "rejected": f"\n\nHuman: {PROMPTS[i]}\n\nAssistant: {POOR[i]}",
                    }
                )
            )
        ),
        "pairwise",
        {},
    ),
    "HelpSteer": (
        "ac.jsonl",
        lines(
            rows(
                lambda i: {
                    "prompt": PROMPTS[i],
                    "response": GOOD[i],
                    "helpfulness": i % 5,
                    "correctness": 4 - i % 5,
                    "coherence": 4,
                    "complexity": i % 3,
                    "verbosity": i % 4,
                }
            )
        ),
        "attributes",
        {"ratings": None, "aspects": ("helpfulness", "correctness", "coherence", "complexity", "verbosity")},
    ),
    "UltraFeedback": (
        "ad.jsonl",
        lines(
            rows(
                lambda i: {
                    "instruction": PROMPTS[i],
                    "completions": [
                        {
                            "model": "x",
                            "response": GOOD[i],
                            "annotations": {"helpfulness": {"Rating": str(1 + i % 5)}, "honesty": {"Rating": "4"}},
                        },
                        {"model": "y", "response": POOR[i], "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "5"}}},
                    ],
                }
            )
        ),
        "attributes",
        {"ratings": "completions.annotations", "value_field": "Rating", "text_numbers": True, "scale": (1, 5)},
    ),
    "Nectar": (
        "ae.jsonl",
        lines(
            rows(
                lambda i: {
                    "prompt": PROMPTS[i],
                    "answers": [
                        {"answer": GOOD[i], "model": "x", "rank": 1.0},
                        {"answer": POOR[i], "model": "y", "rank": 3.0},
                        {"answer": FINE[i], "model": "z", "rank": 2.0},
                    ],
                }
            )
        ),
        "ranking",
        {"responses": "answers", "text_field": "answer", "rank_field": "rank", "model_field": "model"},
    ),
    "a chat arena": (
        "af.jsonl",
        lines(
            rows(
                lambda i: {
                    "question_id": f"q{i}",
                    "model_a": "x",
                    "model_b": "y",
                    "winner": ["model_a", "model_b", "tie", "tie (bothbad)"][i % 4],
                    "judge": f"arena_user_{i % 5}",
                    "conversation_a": turns(PROMPTS[i], GOOD[i]),
                    "conversation_b": turns(PROMPTS[i], POOR[i]),
                    "turn": 1,
                }
            )
        ),
        "verdict",
        {
            "first": "conversation_a",
            "second": "conversation_b",
            "verdict": "winner",
            "models": ("model_a", "model_b"),
            "annotator": "judge",
        },
    ),
    "AlpacaEval": (
        "ag.json",
        array(
            rows(
                lambda i: {
                    "instruction": PROMPTS[i],
                    "output_1": GOOD[i],
                    "generator_1": "x",
                    "output_2": POOR[i],
                    "generator_2": "y",
                    "annotator": "j",
                    "preference": 1.0 + i % 2,
                }
            )
        ),
        "verdict",
        {"first": "output_1", "second": "output_2", "verdict": "preference", "first_wins": (1,), "second_wins": (2,)},
    ),
    "index of the safer": (
        "ah.jsonl",
        lines(rows(lambda i: {"prompt": PROMPTS[i], "response_0": GOOD[i], "response_1": POOR[i], "better_response_id": i % 2})),
        "verdict",
        {"first_wins": (0,), "second_wins": (1,), "verdict": "better_response_id"},
    ),
    "process supervision": (
        "ai.jsonl",
        lines(rows(lambda i: {"prompt": PROMPTS[i], "completions": [GOOD[i], POOR[i]], "labels": [True, i % 2 == 0]})),
        "stepwise",
        {"completions": "completions", "labels": "labels"},
    ),
    "responses and ranks": (
        "aj.jsonl",
        lines(rows(lambda i: {"prompt": PROMPTS[i], "responses": [GOOD[i], POOR[i], FINE[i]], "ranks": [1, 3, 2 + i % 2]})),
        "ranking",
        {"responses": "responses", "ranks": "ranks", "ranks_are": "places"},
    ),
    "error spans": (
        "ak.jsonl",
        lines(
            rows(
                lambda i: {
                    "source": PROMPTS[i],
                    "translation": GOOD[i],
                    "errors": [{"start": 2, "end": 6, "severity": ["major", "minor"][i % 2], "category": "accuracy"}],
                }
            )
        ),
        "spans",
        {"prompt": "source", "response": "translation", "spans": "errors", "value": "severity"},
    ),
    # Annotation tools
    "Label Studio": (
        "al.json",
        array(
            rows(
                lambda i: {
                    "id": i,
                    "data": {"prompt": PROMPTS[i], "response": GOOD[i]},
                    "annotations": [
                        {
                            "completed_by": 1,
                            "result": [{"from_name": "stars", "to_name": "response", "type": "rating", "value": {"rating": 1 + i % 5}}],
                        }
                    ],
                }
            )
        ),
        "label_studio",
        {"scale": (1, 5)},
    ),
    "Argilla": (
        "am.json",
        array(
            rows(
                lambda i: {
                    "id": str(i),
                    "fields": {"prompt": PROMPTS[i], "response": GOOD[i]},
                    "responses": {"quality": [{"value": 1 + i % 5, "user_id": f"u{i % 2}"}]},
                    "suggestions": {},
                }
            )
        ),
        "argilla",
        {"questions": {"quality": "rating"}, "scale": (1, 5)},
    ),
    "a label tool's JSON Lines": (
        "an.jsonl",
        lines(rows(lambda i: {"text": GOOD[i], "label": ["POSITIVE", "NEGATIVE"][i % 2], "Comments": []})),
        "thumbs",
        {"prompt": None, "response": "text", "label": "label", "up": ("POSITIVE",), "down": ("NEGATIVE",)},
    ),
    "this project's records": (
        "ao.jsonl",
        lines(rows(lambda i: {"version": 1, "prompt": PROMPTS[i], "responses": [GOOD[i]], "judgement": {"kind": "thumbs", "up": True}})),
        "record",
        {},
    ),
}


def first_proposal(folder: Path, name: str, content: bytes) -> Proposal:
    file = folder / name
    file.write_bytes(content)
    return propose(str(file))[1][0]


@pytest.mark.parametrize("case", FILES)
def test_the_first_proposal_is_right(case: str, tmp_path: Path):
    name, content, form, settings = FILES[case]
    proposal = first_proposal(tmp_path, name, content)
    candidate = proposal.candidates[0]
    assert candidate.format == form, proposal.overrides
    assert {key: candidate.settings.get(key) for key in settings} == settings
    assert proposal.share == 1


UNCLEAR = {
    "0 and 1 for a and b": lambda i: {"prompt": PROMPTS[i], "response_a": GOOD[i], "response_b": POOR[i], "label": i % 2},
    "a signed preference": lambda i: {"prompt": PROMPTS[i], "response_a": GOOD[i], "response_b": POOR[i], "preference": i % 7 - 3},
    "how toxic": lambda i: {"comment_text": GOOD[i], "toxicity": round(0.07 * i, 3), "insult": round(0.05 * i, 3)},
    "difficulty of a question": lambda i: {"question": PROMPTS[i], "answer": GOOD[i], "difficulty": 1 + i % 3},
    "one column per winner": lambda i: {
        "prompt": PROMPTS[i], "response_a": GOOD[i], "response_b": POOR[i], "winner_a": int(i % 3 == 0), "winner_b": int(i % 3 == 1)},
}  # fmt: skip
WITHOUT_JUDGEMENT = {
    "prompts": lambda i: {"prompt": PROMPTS[i]},
    "demonstrations": lambda i: {"messages": turns(PROMPTS[i], GOOD[i])},
    "instructions": lambda i: {"instruction": PROMPTS[i], "output": GOOD[i]},
    "a benchmark": lambda i: {"model": f"model-{i}", "accuracy on math": 50 + i, "accuracy on code": 30 + i},
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_the_file_does_not_say_is_not_sure(case: str, tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(rows(UNCLEAR[case])))
    assert not any(proposal.is_sure for proposal in propose(str(file))[1])


@pytest.mark.parametrize("case", WITHOUT_JUDGEMENT)
def test_a_file_without_judgements_has_no_proposal(case: str, tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(rows(WITHOUT_JUDGEMENT[case])))
    assert propose(str(file))[1] == []
