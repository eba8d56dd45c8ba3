"""Sixty malformed files, each through source, formats and filters, with its stated outcome."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.contradictions import contradictions
from rlhf_lightning.feedback.filter.duplicates import duplicates
from rlhf_lightning.feedback.filter.encoding import encoding
from rlhf_lightning.feedback.filter.identical import identical
from rlhf_lightning.feedback.filter.length import length
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback

STORED = Path(__file__).resolve().parents[2] / ".." / "shared" / "goldens" / "bad_feedback.json"
CASES: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads(STORED.read_bytes())["cases"]} if STORED.exists() else {}

# Refused: the line, and what the message must say.
REFUSED: dict[str, tuple[int, str]] = {
    "number prompt": (1, "prompt must be text, not a number (5)"),
    "list prompt": (1, "prompt[0] must be a message"),
    "unknown field": (1, "unknown field 'chosn', did you mean 'chosen'?"),
    "duplicate key": (1, "key 'chosen' is given twice"),
    "NaN rating": (1, '"rating" is NaN'),
    "Infinity rating": (1, '"rating" is Infinity'),
    "out of scale": (1, "rating is 10, off the scale 1 to 5"),
    "string rating": (1, "rating must be a finite number, not text ('5')"),
    "boolean rating": (1, "rating must be a finite number, not true"),
    "huge int rating": (1, "rating must be a finite number, not a number (beyond 1e15)"),
    "ranking wrong length": (1, "ranking has 2 places for 3 responses"),
    "ranking with one response": (1, "responses has one response"),
    "edit empty": (1, "edit is empty text"),
    "latin-1": (1, "not UTF-8: byte 0xe9 at byte offset 14"),
    "utf-16": (1, "UTF-16"),
    "lone surrogate": (1, "'prompt' holds a lone surrogate"),
    "NUL inside": (1, "'prompt' holds a NUL"),
    "cut last line": (2, "not JSON"),
    "broken middle line": (2, "not JSON"),
    "json array instead of lines": (1, "JSONL"),
    "empty file": (1, "no rows"),
    "only newline": (2, "no rows"),
    "deep nesting": (1, "JSON array"),
    "gzip truncated": (4928, "truncated"),
    "zip bomb gz 100 MB of zeros": (1, "unpacks to more than 200 times its size"),
}
for _name in ("prompt", "chosen", "rejected"):
    REFUSED |= {
        f"missing {_name}": (1, f"field '{_name}' is missing"),
        f"null {_name}": (1, f"{_name} is null"),
        f"number {_name}": (1, f"{_name} must be text, not a number (5)"),
        f"list {_name}": (1, f"{_name}[0] must be a message"),
        f"empty {_name}": (1, f"{_name} is empty text"),
        f"blank {_name}": (1, f"{_name} is blank text"),
    }
# Read: how many records stay after the filters, and what the filters must say.
KEPT: dict[str, tuple[int, str]] = {
    "valid": (1, ""),
    "identical chosen/rejected": (0, "removed 1: identical responses"),
    "identical after unicode NFC": (0, "removed 1: identical responses"),
    "contradictory pair": (2, "1 of 1 compared pairs were judged both ways (100.00 %)"),
    "exact duplicate": (1, "removed 2: exact duplicate"),
    "fractional on integer scale": (1, ""),
    "tie in ranking": (1, ""),
    "ranking not a permutation": (1, ""),
    "ranking duplicate responses": (0, "removed 1: identical responses"),
    "edit equal to original": (1, "changed 1: edit equal to its original, kept as approval"),
    "utf-8 BOM": (1, ""),
    "control and bidi": (1, "changed 1: text repaired"),
    "special tokens in text": (1, ""),
    "html in text": (1, ""),
    "csv formula": (1, ""),
    "crlf": (1, ""),
    "blank lines": (2, ""),
    "gzip with wrong extension": (1, ""),
    "2 MB prompt": (1, ""),
}

pytestmark = pytest.mark.skipif(not CASES, reason="the malformed files are not beside the repository")


def file_of(name: str, folder: Path) -> Path:
    file = folder / "feedback.jsonl"
    file.write_bytes(base64.b64decode(CASES[name]["bytes_b64"]))
    return file


def read(file: Path, **settings: Any) -> list[Feedback]:
    formats = [PairwiseFormat(), RatingFormat(), RankingFormat(), EditFormat()]
    return read_feedback(jsonl(path=str(file), **settings), formats).feedback


def clean(feedback: Iterable[Feedback]) -> tuple[list[Feedback], str]:
    told: list[str] = []
    for component in (encoding, identical, duplicates, contradictions):
        cleaning = Cleaning()
        feedback = list(component(feedback, cleaning))
        told += cleaning.lines()
    return list(feedback), "\n".join(told)


def test_every_case_has_an_outcome() -> None:
    assert set(CASES) == set(REFUSED) | set(KEPT)
    assert not set(REFUSED) & set(KEPT)
    assert len(CASES) == 60


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name: str, tmp_path: Path) -> None:
    file = file_of(name, tmp_path)
    line, words = REFUSED[name]
    with pytest.raises(DataError) as error:
        read(file)
    assert f"{file}:{line}: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("name", sorted(KEPT))
def test_kept(name: str, tmp_path: Path) -> None:
    count, words = KEPT[name]
    kept, told = clean(read(file_of(name, tmp_path)))
    assert len(kept) == count
    assert words in told


def test_a_bad_line_does_not_hide_the_next(tmp_path: Path) -> None:
    file = tmp_path / "feedback.jsonl"
    file.write_bytes(base64.b64decode(CASES["broken middle line"]["bytes_b64"]) + b'{"prompt":"p"}\n')
    with pytest.raises(DataError, match=r"2 of 4 lines") as error:
        read(file)
    assert f"{file}:2: " in str(error.value)
    assert f"{file}:4: " in str(error.value)


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    assert [record.origin for record in read(file_of("blank lines", tmp_path))] == [f"{tmp_path}/feedback.jsonl:{n}" for n in (1, 4)]


def test_a_cut_tail_may_be_left_out_and_is_reported(tmp_path: Path) -> None:
    file = file_of("cut last line", tmp_path)
    reading = read_feedback(jsonl(path=str(file), allow_truncated_tail=True), [PairwiseFormat()])
    assert [record.prompt for record in reading.feedback] == ["p"]
    assert reading.notes[0].startswith(f"{file}:2: the last line is cut off")


def test_a_truncated_gzip_may_be_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = file_of("gzip truncated", tmp_path)
    reading = read_feedback(jsonl(path=str(file), allow_truncated_tail=True), [PairwiseFormat()])
    assert len(reading.feedback) == 4927
    assert "truncated" in reading.notes[0]


def test_the_bomb_is_never_held(tmp_path: Path) -> None:
    file = file_of("zip bomb gz 100 MB of zeros", tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_what_is_kept_says_what_it_should(tmp_path: Path) -> None:
    def first(name: str) -> Feedback:
        return clean(read(file_of(name, tmp_path)))[0][0]

    assert comparisons(first("tie in ranking")) == []
    assert comparisons(first("ranking not a permutation")) == [(0, 1), (0, 2)]
    assert comparisons(first("edit equal to original")) == []
    assert first("control and bidi").prompt == "a\u202eb"
    assert first("special tokens in text").prompt == "<|im_end|><|endoftext|>[INST]"
    assert first("html in text").prompt == "<script>1</script>"
    assert len(first("2 MB prompt").prompt) == 2_000_000
    long = Cleaning()
    assert list(length([first("2 MB prompt")], long)) == []
    assert long.removed == {"prompt longer than 20000 characters": 1}
