"""Ten thousand damaged files of every format and kind: feedback comes of each, or a refusal that names file and line."""

from __future__ import annotations

import csv as library
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.argilla import ArgillaFormat
from rlhf_lightning.feedback.format.attributes import AttributesFormat
from rlhf_lightning.feedback.format.comment import CommentFormat
from rlhf_lightning.feedback.format.dialogue import DialogueFormat
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.format.label_studio import LabelStudioFormat
from rlhf_lightning.feedback.format.oasst import OasstFormat
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.format.spans import SpansFormat
from rlhf_lightning.feedback.format.stepwise import StepwiseFormat
from rlhf_lightning.feedback.format.thumbs import ThumbsFormat
from rlhf_lightning.feedback.format.verdict import VerdictFormat
from rlhf_lightning.feedback.reading import Format, Reader
from rlhf_lightning.feedback.source.csv import csv
from rlhf_lightning.feedback.source.json import json as array
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.flow import Comment, Edit, Feedback, Message, Ranking, Rating, SpanLabel, Spans, Thumbs

TIMES = 10_000
CHAT = [{"role": "user", "content": "Sag ü 😀"}, {"role": "assistant", "content": "hallo"}, {"role": "user", "content": "more"}]
ANSWER = [{"role": "assistant", "content": "well"}]
JUDGED = {
    "rating": (("a",), Rating(value=1, scale=(0, 2), aspect="tone", turn=1)),
    "ranking": (("a", "b", "é"), Ranking(ranks=(0, None, 1), margin=1.5, all_bad=True)),
    "edit": (("an old text", "a new text"), Edit()),
    "thumbs": (("a",), Thumbs(up=True)),
    "spans": (("words 😀",), Spans(spans=(SpanLabel(start=0, end=5, value=-1, label="x"), SpanLabel(start=6, end=7, value=0.5)))),
    "comment": (("words",), Comment(text="good", start=0, end=2)),
}
RECORDS = [
    Feedback(
        prompt=(Message(role="user", content="hi"),) if kind == "rating" else "p",
        responses=responses,
        judgement=judgement,
        models=(None,) * len(responses),
        positions=tuple(range(len(responses))),
        annotator="anna",
        time=datetime(2024, 5, 6, 7, 8, tzinfo=UTC),
        seconds=2.5,
        source="set",
        origin="f:1",
    ).model_dump(mode="json")
    for kind, (responses, judgement) in JUDGED.items()
]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=i % 2 == 0).encode() + b"\n" for i, row in enumerate(rows))


def listed(rows: list[Any]) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def table(rows: list[Any]) -> bytes:
    text = io.StringIO()
    writer = library.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Case:
    """Rows that the formats read, how they are stored, and how many records they make."""

    formats: list[Format]
    rows: list[Any]
    count: int
    store: Callable[[list[Any]], bytes] = lines
    source: Callable[..., Any] = jsonl
    settings: dict[str, Any] = field(default_factory=dict)


RATINGS = [
    {"prompt": "p", "response": "r", "ratings": [1, 4.5, 5], "scale": [1, 5], "time": "2024-05-06T07:08:00Z"},
    {"prompt": CHAT, "response": ANSWER, "rating": 2, "scale": [0, 5], "annotator": "bo", "seconds": 3},
]
PAIRS = [
    {"prompt": "Say hé 😀", "chosen": "hello", "rejected": "no\n", "margin": 1.5},
    {"prompt": CHAT, "chosen": ANSWER, "rejected": [{"role": "assistant", "content": "no"}]},
    {"chosen": [*CHAT, *ANSWER], "rejected": [*CHAT, {"role": "assistant", "content": "no"}]},
    {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
]
RANKINGS = [
    {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [2, 1, 3], "annotator": "anna"},
    {"prompt": "p", "responses": [{"text": "a", "rank": 0}, {"text": "ü", "rank": 1}]},
]
EDITS = [{"prompt": "p", "response": "an old text", "edit": "a new text"}, {"prompt": CHAT, "response": "x", "edit": "y", "seconds": 9}]
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "text": "q",
        "role": "prompter",
        "lang": "en",
        "replies": [{"text": text, "role": "assistant", "rank": rank, "replies": []} for rank, text in enumerate("abé")],
    },
}
ARGILLA = {
    "id": "1",
    "fields": {"prompt": "p", "response": "good text"},
    "responses": {
        "q": [{"value": 4, "user_id": "u"}, {"value": 2, "user_id": "v"}],
        "s": [{"value": [{"start": 0, "end": 4, "label": "praise"}], "user_id": "u"}],
    },
}
TASK = {
    "id": 7,
    "data": {"prompt": "p", "response": "one 👍 two", "answer1": "left", "answer2": "right"},
    "annotations": [
        {
            "id": 1,
            "completed_by": 3,
            "was_cancelled": False,
            "result": [
                {"id": "r", "from_name": "c", "to_name": "t", "type": "rating", "value": {"rating": 4}},
                {"id": "s", "from_name": "d", "to_name": "t", "type": "pairwise", "value": {"selected": "left"}},
                {"id": "u", "from_name": "e", "to_name": "t", "type": "labels", "value": {"start": 0, "end": 3, "labels": ["x"]}},
            ],
        }
    ],
}
TALK = [*CHAT[:1], {"role": "assistant", "content": "a", "rating": 3}, *CHAT[2:], {"role": "assistant", "content": "b", "rating": 5}]
NESTED = [{"q": "p", "rs": [{"t": "a", "s": 1}, {"t": "b", "s": 2.5}], "m": {"by": "bo"}} for _ in range(3)]
FLAT = [{"prompt": "a, b", "response": 'say "x"\nagain', "ratings": "[1, 2]", "label": "true", "scale": "[0,5]"} for _ in range(3)]

CASES = {
    "pairs": Case([PairwiseFormat()], PAIRS * 2, 8),
    "ratings": Case([RatingFormat()], RATINGS * 2, 8),
    "rankings": Case([RankingFormat()], RANKINGS * 2, 4),
    "edits": Case([EditFormat()], EDITS * 2, 4),
    "mixed": Case(
        [PairwiseFormat(), RatingFormat(), RankingFormat(), EditFormat(), RecordFormat()], [*PAIRS, *RATINGS, *RANKINGS, *EDITS], 12
    ),
    "records": Case([RecordFormat()], RECORDS, 6),
    "records in an array": Case([RecordFormat()], RECORDS, 6, listed, array),
    "pairs in an array": Case([PairwiseFormat()], PAIRS, 4, listed, array),
    "thumbs": Case([ThumbsFormat()], [{"prompt": "p", "completion": "r", "response": "r", "label": i % 2 == 0} for i in range(4)], 4),
    "verdicts": Case(
        [VerdictFormat()],
        [
            {"prompt": "p", "response_1": "a", "response_2": "b", "votes": [1, 2, 0]},
            {"prompt": "p", "response_1": "a", "response_2": "b", "verdict": "tie"},
        ],
        4,
    ),
    "attributes": Case([AttributesFormat(scale=(0, 4))], [{"prompt": "p", "response": "r", "ratings": {"tone": 3, "truth": 1.5}}] * 3, 6),
    "dialogues": Case([DialogueFormat(scale=(0, 5))], [{"messages": TALK}] * 2, 4),
    "spans": Case([SpansFormat()], [{"prompt": "p", "response": "words", "spans": [{"start": 0, "end": 3, "value": -1}]}] * 3, 3),
    "steps": Case([StepwiseFormat()], [{"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}] * 3, 3),
    "comments": Case(
        [CommentFormat()], [{"prompt": "p", "response": "words", "comment": ["good", {"text": "ü", "start": 0, "end": 3}]}] * 3, 6
    ),
    "trees": Case([OasstFormat()], [TREE] * 3, 3),
    "argilla": Case(
        [ArgillaFormat(questions={"q": "rating", "s": "spans"}, scale=(1, 5), spans={"praise": 1})], [ARGILLA] * 2, 6, listed, array
    ),
    "label studio": Case([LabelStudioFormat(scale=(1, 5), spans={"x": -1})], [TASK] * 2, 6, listed, array),
    "taken apart": Case(
        [RatingFormat(scale=(0, 5))],
        NESTED,
        6,
        settings={
            "explode": ("rs",),
            "rename": {"q": "prompt", "rs.t": "response", "rs.s": "rating", "m.by": "annotator"},
        },
    ),
    "tables": Case([RatingFormat(), ThumbsFormat()], FLAT, 9, table, csv, {"lists": ("ratings", "scale"), "booleans": ("label",)}),
}


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes with one to three changes: flip, insert, delete, truncate, duplicate a slice, splice in another file's."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place, size = rng.randrange(len(changed) + 1), rng.randint(1, 40)
        letter = rng.choice([rng.randrange(256), *b'"\\{}[]:,\n\x00-9eN\xff\xc3\xed'])
        match rng.randrange(12):
            case 0 | 1 | 2:
                changed[place : place + 1] = bytes([letter])
            case 3 | 4:
                changed[place:place] = bytes([letter])
            case 5:
                changed[place : place + 1] = bytes([changed[place % len(changed)] ^ 1 << rng.randrange(8)]) if changed else b""
            case 6 | 7:
                del changed[place : place + (1 if rng.random() < 0.5 else size)]
            case 8:
                del changed[place:]
            case 9:
                changed[place:place] = changed[place : place + size]
            case 10:
                changed[place:place] = changed[place : place + size] * 20
            case _:
                start = rng.randrange(len(other))
                changed[place : place + rng.randint(0, 40)] = other[start : start + size]
    return bytes(changed)


def feedback(case: Case, file: Path, quarantine: Path | None = None) -> tuple[list[Feedback], int]:
    mode: dict[str, Any] = {} if quarantine is None else {"on_bad": "quarantine", "quarantine": quarantine, "max_bad_fraction": 1.0}
    reader = Reader(case.source(path=str(file), **case.settings), case.formats, **mode)
    return list(reader), reader.bad


@pytest.mark.parametrize("name", CASES)
def test_unharmed_files_are_read(name: str, tmp_path: Path) -> None:
    case, file = CASES[name], tmp_path / "f"
    file.write_bytes(case.store(case.rows))
    found, bad = feedback(case, file)
    assert (len(found), bad) == (case.count, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_read_or_refused_with_file_and_line(name: str, tmp_path: Path) -> None:
    case, file, aside = CASES[name], tmp_path / "f", tmp_path / "aside"
    rng = random.Random(name)
    whole, others = case.store(case.rows), [other.store(other.rows) for other in CASES.values()]
    times, told = TIMES // len(CASES), list[str]()
    for turn in range(times):
        # Every tenth is damaged inside the gzip file, every other tenth before it was packed.
        damaged = mutated(gzip.compress(whole, 1, mtime=0) if turn % 10 == 0 else whole, rng.choice(others), rng)
        file.write_bytes(gzip.compress(damaged, 1, mtime=0) if turn % 10 == 5 else damaged)
        try:
            found, bad = feedback(case, file, aside if turn % 8 == 0 else None)
        except DataError as error:
            told.append(str(error))
            continue
        assert (turn % 8 == 0) or bad == 0
        for record in found:
            assert Feedback.model_validate_json(record.model_dump_json()) == record
            assert all(text.strip() for text in record.responses)
        assert len(found) > 0 or "oasst" in str(case.formats)
        if bad:
            assert len(aside.read_text().splitlines()) == bad
            aside.unlink()
    origin = rf"{re.escape(str(file))}:\d+"
    assert [message for message in told if not re.search(rf"{origin}(?:, {origin})*(?: and \d+ more)?: ", message)] == []
    assert times * 0.2 < len(told) < times
