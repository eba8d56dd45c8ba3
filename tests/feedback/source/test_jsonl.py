"""JSON Lines: what is accepted, what is refused, and that nothing else can happen."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback import row_files as module
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.jsonl import jsonl

VALID = b"".join(
    json.dumps(row, ensure_ascii=escaped).encode() + b"\n"
    for escaped, row in (
        (True, {"prompt": "Say hé 😀", "chosen": "hello", "rejected": "no\n", "margin": 1.5}),
        (False, {"prompt": "Sag ü 😀", "chosen": "hallo", "rejected": "nein"}),
        (True, {"prompt": "p", "response": "r", "ratings": [1, 4.5, 5], "scale": [1, 5]}),
        (True, {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [2, 1, 3], "annotator": "anna"}),
        (False, {"prompt": "p", "responses": [{"text": "a", "rank": 0}, {"text": "ü", "rank": 1}]}),
        (True, {"prompt": "p", "response": "an old text", "edit": "a new text"}),
        (True, {"prompt": "p", "responses": ["a"], "judgement": {"kind": "rating", "value": 1, "scale": [0, 2]}}),
    )
)


def read(path: Path | str, **settings: Any) -> list[Row | BadLine]:
    return list(jsonl(path=str(path), **settings))


def fatal(path: Path, **settings: Any) -> str:
    (*_, last) = read(path, **settings)
    assert isinstance(last, BadLine)
    assert last.verdict == "fatal"
    return last.reason


def bad(line: bytes, tmp_path: Path, **settings: Any) -> str:
    """The reason for which a line is refused, between two good ones."""
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'{"a":1}\n' + line + b'\n{"a":2}\n')
    first, second, third = read(file, **settings)
    assert isinstance(first, Row)
    assert isinstance(third, Row)
    assert isinstance(second, BadLine)
    assert (second.origin, second.verdict, third.origin) == (f"{file}:2", "bad", f"{file}:3")
    return second.reason


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":{"b":1,"b":2}}', "key 'b' is given twice"),
        (b'{"a":[-Infinity]}', "-Infinity, which is not a JSON number"),
        (b'{"a":"x\x00y"}', "not JSON"),
        (b'{"a":"x\x01y"}', "not JSON"),
        (b'{"a":"\\ud83d"}', "'a' holds a lone surrogate"),
        (b'{"\\ude00":1}', "lone surrogate"),
        (b'{"a":{"b":["\\u0000"]}}', "'a' holds a NUL"),
        (b'{"a":"\xf0\x9f\x98"}', "byte 0xf0 at byte offset 14 of the file"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":1}{"a":2}', "not JSON: Extra data"),
        (b"5", "must be a JSON object, not a number (5)"),
        (b'"text"', "must be a JSON object, not text"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_bad_lines(line: bytes, words: str, tmp_path: Path) -> None:
    assert words in bad(line, tmp_path)


def test_escapes_that_are_text_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(rb'{"a":"\ud83d\ude00","b":"\\u0000 \\ud800","c":"\u00e9"}')
    (row,) = read(file)
    assert isinstance(row, Row)
    assert row.data == {"a": "😀", "b": r"\u0000 \ud800", "c": "é"}


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\u0085d", "e\u000cf"]
    file = tmp_path / "f"
    file.write_text("\r\n".join(json.dumps({"t": t}, ensure_ascii=False) for t in texts), encoding="utf-8", newline="")
    assert [row.data["t"] for row in read(file) if isinstance(row, Row)] == texts


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('{"a":1}\n'.encode("utf-16"), "UTF-16"),
        ('{"a":1}\n'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}\n'.encode("utf-16-be"), "UTF-16"),
        ('{"a":1}\n'.encode("utf-32"), "UTF-32"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"PAR1rest", "Parquet"),
        (b'\n  [\n{"a":1}\n]\n', "JSON array, not JSON Lines"),
        (b"\xef\xbb\xbf", "no rows"),
        (gzip.compress(b"", mtime=0), "no rows"),
        (gzip.compress(b'{"a":1}\n', mtime=0) + b"junk", "damaged"),
    ],
)
def test_files_that_are_something_else(head: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(head)
    assert words in fatal(tmp_path / "f")


def test_every_cut_of_a_gzip_file_is_called_truncated(tmp_path: Path) -> None:
    packed = gzip.compress(VALID, mtime=0)
    for size in range(2, len(packed)):
        (tmp_path / "f").write_bytes(packed[:size])
        assert "truncated" in fatal(tmp_path / "f")


def test_what_stands_before_the_cut_is_all_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    packed = gzip.compress(b'{"a":"x"}\n' * 200, mtime=0)
    for size in range(12, len(packed)):
        (tmp_path / "f").write_bytes(packed[:size])
        whole_lines = zlib.decompressobj(wbits=31).decompress(packed[:size]).count(b"\n")
        assert sum(isinstance(item, Row) for item in read(tmp_path / "f", allow_truncated_tail=True)) == whole_lines


def test_a_flipped_bit_in_a_gzip_file_never_passes(tmp_path: Path) -> None:
    packed, whole = gzip.compress(VALID, mtime=0), [json.loads(line) for line in VALID.splitlines()]
    for place in range(10, len(packed)):
        (tmp_path / "f").write_bytes(packed[:place] + bytes([packed[place] ^ 16]) + packed[place + 1 :])
        items = read(tmp_path / "f")
        spoilt = any(isinstance(item, BadLine) and item.verdict == "fatal" for item in items)
        assert spoilt or [item.data for item in items if isinstance(item, Row)] == whole


def test_gzip_of_several_members_padded_and_highly_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    long = b'{"a":"' + b"x" * 5000 + b'"}\n'
    (tmp_path / "f").write_bytes(
        gzip.compress(b'{"a":1}\n{"a"') + gzip.compress(b":2}\n", mtime=0) + gzip.compress(long, mtime=0) + b"\x00" * 20
    )
    assert [row.data["a"] for row in read(tmp_path / "f") if isinstance(row, Row)] == [1, 2, "x" * 5000]


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.text(alphabet="ab\r é", max_size=30), max_size=8), block=st.integers(1, 40), packed=st.booleans())
def test_blocks_do_not_show(tmp_path_factory: pytest.TempPathFactory, lines: list[str], block: int, packed: bool) -> None:
    """Lines, numbers and byte offsets are those of the whole file, wherever blocks end."""
    data = "\n".join(lines).encode()
    stored = zlib.compress(data, wbits=31) if packed else data
    blocks = iter([stored[i : i + block] for i in range(0, len(stored), block)])
    if packed:
        file = tmp_path_factory.getbasetemp() / "blocks"
        file.write_bytes(stored)
        with pytest.MonkeyPatch.context() as patch, file.open("rb") as handle:
            patch.setattr(module, "BLOCK", max(block, 2))
            found = list(module.lines(module.Stream(handle).blocks(), 1000))
    else:
        found = list(module.lines(blocks, 1000))
    parts = data.split(b"\n")
    assert [(number, raw) for number, _, raw, _ in found] == list(enumerate(parts, 1))
    assert [offset for _, offset, _, _ in found] == [len(b"\n".join(parts[:i])) + (i > 0) for i in range(len(parts))]
    assert [ended for *_, ended in found] == [True] * (len(parts) - 1) + [False]


def test_lines_after_one_that_is_too_long_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    file = tmp_path / "f"
    file.write_bytes(b'{"a":"' + b"x" * 500 + b'"}\n{"a":1}\n{"a":"\xe9"}\n')
    long, row, latin = read(file, max_line_bytes=50)
    assert isinstance(long, BadLine)
    assert "longer than the limit of 50 bytes" in long.reason
    assert isinstance(row, Row)
    assert (row.origin, row.data) == (f"{file}:2", {"a": 1})
    assert isinstance(latin, BadLine)
    assert f"byte offset {file.read_bytes().index(0xE9)} of" in latin.reason
    exact = b'{"a":"' + b"x" * 42 + b'"}'
    file.write_bytes(exact)
    assert isinstance(read(file, max_line_bytes=50)[0], Row)
    assert isinstance(read(file, max_line_bytes=49)[0], BadLine)


def test_a_cut_tail_needs_consent_and_a_whole_line_is_none(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'{"a":1}\n{"a":"\xc3')
    assert [getattr(item, "verdict", "row") for item in read(file)] == ["row", "bad"]
    assert [getattr(item, "verdict", "row") for item in read(file, allow_truncated_tail=True)] == ["row", "allowed"]
    file.write_bytes(b'{"a":1}\n{"a"\n')
    assert [getattr(item, "verdict", "row") for item in read(file, allow_truncated_tail=True)] == ["row", "bad"]
    file.write_bytes(b'{"a":1}\n{"a":2}')
    assert len([item for item in read(file) if isinstance(item, Row)]) == 2
    file.write_bytes(gzip.compress(VALID, mtime=0)[:-1])
    assert getattr(read(file, allow_truncated_tail=True)[-1], "verdict", "row") == "allowed"


def test_folders_patterns_and_limits(tmp_path: Path) -> None:
    for name, packed in {"b.jsonl": False, "a.jsonl.gz": True, "c.json": False, "notes.txt": False}.items():
        line = json.dumps({"from": name}).encode()
        (tmp_path / name).write_bytes(gzip.compress(line, mtime=0) if packed else line)
    (tmp_path / "sub.jsonl").mkdir()
    (tmp_path / "sub.jsonl" / "d.jsonl").write_bytes(b'{"from":"d"}')

    def names(path: Path | str, **settings: Any) -> list[str]:
        return [item.data["from"] for item in read(path, **settings) if isinstance(item, Row)]

    assert names(tmp_path) == ["a.jsonl.gz", "b.jsonl", "c.json"]
    assert names(tmp_path / "*.json*") == ["a.jsonl.gz", "b.jsonl", "c.json"]
    assert names(tmp_path / "**" / "d.jsonl") == ["d"]
    assert names(tmp_path, limit=2) == ["a.jsonl.gz", "b.jsonl"]
    (tmp_path / "b.jsonl").write_bytes(b"\n")
    assert [getattr(item, "verdict", "row") for item in read(tmp_path)] == ["row", "fatal", "row"]


def test_ignored_fields_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b'{"prompt":"p","chosen":"a","rejected":"b","chosn":1}')
    assert read_feedback(jsonl(path=str(tmp_path / "f"), ignore_fields=("chosn",)), [PairwiseFormat()]).notes == []


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, words in {
        str(tmp_path / "none.jsonl"): "no such file",
        str(tmp_path / "*.none"): "no file fits the pattern",
        str(tmp_path / "empty"): "the folder has no *.jsonl",
        str(tmp_path / "pipe"): "not a regular file",
        str(tmp_path / "link"): "can't be read: No such file",
        "https://example.org/f.jsonl": "is a URL",
        "nul\x00byte": "'nul\\x00byte': no such file",
        "x" * 5000: "can't be read: File name too long",
    }.items():
        with pytest.raises(DataError, match=re.escape(words)):
            read(path)
    (tmp_path / "real").write_bytes(b'{"a":1}')
    (tmp_path / "good").symlink_to(tmp_path / "real")
    assert len(read(tmp_path / "good")) == 1


def test_an_archive_bomb_is_a_fault_in_bounded_memory(tmp_path):
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b" " * (40 << 20)) * 3)
    found = list(jsonl(path=str(bomb)))
    assert [(item.verdict, "more than 200 times its size" in item.reason) for item in found] == [("fatal", True)]
