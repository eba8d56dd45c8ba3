"""A JSON array: the same rows as Python's own parser finds, in bounded memory, and every fault with its line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback import row_files
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.json import json as array

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='aé😀\\"{}[],:\n\u2028 ', max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='kü"', max_size=2), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path, **settings: Any) -> list[Row | BadLine]:
    return list(array(path=str(path), **settings))


def last(path: Path, **settings: Any) -> BadLine:
    (*_, line) = read(path, **settings)
    assert isinstance(line, BadLine)
    return line


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3, alphabet="abc é"), VALUES, max_size=4), min_size=1, max_size=6),
    block=st.integers(2, 60),
    indent=st.sampled_from([None, 0, 2]),
    escaped=st.booleans(),
    packed=st.booleans(),
    bom=st.booleans(),
)
def test_rows_are_those_of_the_parser(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], block: int, indent: int | None, escaped: bool, packed: bool, bom: bool
) -> None:
    text = b"\xef\xbb\xbf" * bom + json.dumps(rows, indent=indent, ensure_ascii=escaped).encode() + b"\n \r\n"
    file = tmp_path_factory.getbasetemp() / "array.json"
    file.write_bytes(gzip.compress(text, mtime=0) if packed else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "BLOCK", block)
        items = read(file)
    assert [item.data for item in items if isinstance(item, Row)] == rows
    assert len(items) == len(rows)
    lines = text.decode("utf-8-sig").encode().split(b"\n")
    for item in items:
        assert isinstance(item, Row)
        assert item.intact
        assert json.loads(item.raw) == item.data
        assert item.raw.split(b"\n")[0] in lines[int(item.origin.rpartition(":")[2]) - 1]


def test_items_start_on_the_lines_that_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(b'\n[{"a":\n1}\n,\n {"a":2}, {"a":3}\n]')
    assert [(item.data, item.origin) for item in read(file) if isinstance(item, Row)] == [
        ({"a": 1}, f"{file}:2"),
        ({"a": 2}, f"{file}:5"),
        ({"a": 3}, f"{file}:5"),
    ]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (b'{"a":1,"a":2}', "key 'a' is given twice"),
        (b'{"a":NaN}', '"a" is NaN'),
        (b'{"a":"\\ud800"}', "lone surrogate"),
        (b'{"a":"\\u0000"}', "NUL"),
        (b'{"a":"\xff"}', "not UTF-8: byte 0xff at byte offset 16 of the file"),
        (b"12", "must be a JSON object, not a number (12)"),
        (b"[]", "must be a JSON object, not a list"),
        (b'{"a":' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_an_item_is_refused_between_two_good_ones(item: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(b'[{"a":1},\n' + item + b',\n{"a":2}]')
    first, second, third = read(file)
    assert isinstance(first, Row)
    assert isinstance(third, Row)
    assert isinstance(second, BadLine)
    assert (second.origin, second.verdict, third.origin) == (f"{file}:2", "bad", f"{file}:3")
    assert words in second.reason


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "no rows: the file is empty or blank"),
        (b" \n ", 2, "no rows: the file is empty or blank"),
        (b"[\n]", 2, "no rows: the array is empty"),
        (b'{"a":1}\n{"a":2}', 1, "use feedback_source=jsonl"),
        (b'"text"', 1, "expected '['"),
        (b'[{"a":1}\n', 2, "expected ',' or ']' after an item, but the file ends"),
        (b'[{"a":1}\n{"a":2}]', 2, "expected ',' or ']' after an item"),
        (b'[{"a":1},\n]', 2, "not JSON: Expecting value"),
        (b'[{"a":1},\n\n{"a":1,\n"b":tru}]', 4, "not JSON: Expecting value"),
        (b'[{"a":1},\n{"a":"x]', 2, "not JSON: Unterminated string"),
        (b'[{"a":1}\n]\n[]', 3, "text follows the end of the array"),
        (b'[{"a":' + b"[" * 100_000, 1, "nested too deeply"),
        ('[{"a":1}]'.encode("utf-16"), 1, "UTF-16"),
        ('[{"a":1}]'.encode("utf-16-le"), 1, "UTF-16"),
        (b"PAR1....", 1, "Parquet"),
        (gzip.compress(b'[{"a":1},{"a":2}]', mtime=0)[:-9], 1, "truncated"),
        (gzip.compress(b'[{"a":1},{"a":2}]', mtime=0) + b"junk", 1, "damaged"),
    ],
)
def test_faults_that_spoil_the_file(content: bytes, line: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    fault = last(tmp_path / "f")
    assert (fault.verdict, fault.origin) == ("fatal", f"{tmp_path}/f:{line}")
    assert words in fault.reason


def test_a_long_item_is_refused_exactly_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "BLOCK", 64)
    item = b'{"a":"' + b"x" * 500 + b'"}'
    (tmp_path / "f").write_bytes(b"[" + item + b"]")
    assert isinstance(read(tmp_path / "f", max_item_bytes=len(item))[0], Row)
    assert "longer than the limit of 507 bytes" in last(tmp_path / "f", max_item_bytes=len(item) - 1).reason


@pytest.mark.parametrize("start", [b"[", b'[{"a":"', b'[{"a":1},'])
def test_a_bomb_is_never_held(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(start, mtime=0) + gzip.compress(b" " * (200 << 20), 1, mtime=0))
    tracemalloc.start()
    try:
        assert last(tmp_path / "f").verdict == "fatal"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_an_error_is_found_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "BLOCK", 64)
    (tmp_path / "f").write_bytes(b'[{"a" 1}' + b"\n" * 100_000)
    blocks = []
    real = row_files.Stream.blocks

    def counted(self: row_files.Stream) -> Any:
        for block in real(self):
            blocks.append(block)
            yield block

    monkeypatch.setattr(row_files.Stream, "blocks", counted)
    assert "Expecting ':' delimiter" in last(tmp_path / "f").reason
    assert len(blocks) < 10


def test_folders_hold_json_files(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.jsonl"):
        (tmp_path / name).write_text(json.dumps([{"from": name}]))
    assert [item.data["from"] for item in read(tmp_path) if isinstance(item, Row)] == ["a.json", "b.json"]
