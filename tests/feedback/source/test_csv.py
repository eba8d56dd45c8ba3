"""CSV: cells as the standard library writes them, typed as declared, and every fault with its line."""

from __future__ import annotations

import csv as library
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback import row_files
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.csv import csv


def read(path: Path, **settings: Any) -> list[Row | BadLine]:
    return list(csv(path=str(path), **settings))


def written(folder: Path, content: bytes, name: str = "f.csv") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


CELLS = st.text(alphabet='ab,;\t"\r\n é\u2028=', max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(2, 50),
    packed=st.booleans(),
)
def test_cells_come_back_with_the_line_where_their_row_starts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str, ends: str, block: int, packed: bool
) -> None:
    text = io.StringIO()
    # The library's writer leaves a lone carriage return bare, which its strict reader refuses.
    quoting = library.QUOTE_ALL if any("\r" in cell for row in rows for cell in row) else library.QUOTE_MINIMAL
    writer = library.writer(text, delimiter=delimiter, lineterminator=ends, quoting=quoting)
    writer.writerow("xyz")
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    content = b"\xef\xbb\xbf" + text.getvalue().encode()
    file = tmp_path_factory.getbasetemp() / "cells.csv"
    file.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "BLOCK", block)
        found = read(file, delimiter=delimiter)
    assert [item.data for item in found if isinstance(item, Row)] == [
        {name: cell for name, cell in zip("xyz", row, strict=True) if cell} for row in rows
    ]
    assert [item.origin for item in found] == [f"{file}:{line}" for line in starts]


def test_only_declared_columns_are_more_than_text(tmp_path: Path) -> None:
    file = written(tmp_path, b'n,b,l,t\n-1.5e3,true,"[1,""a""]",5\n7,false,[],true\n,,,\n')
    rows = read(file, numbers=("n",), booleans=("b",), lists=("l",))
    assert [row.data for row in rows if isinstance(row, Row)] == [
        {"n": -1500.0, "b": True, "l": [1, "a"], "t": "5"},
        {"n": 7, "b": False, "l": [], "t": "true"},
        {},
    ]
    assert [type(row.data["n"]) for row in rows[:2] if isinstance(row, Row)] == [float, int]


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("n", "five", "n must be a number as in JSON, not text ('five')"),
        ("n", " 5", "n must be a number"),
        ("n", "05", "n must be a number"),
        ("n", "+5", "n must be a number"),
        ("n", "NaN", "n must be a number"),
        ("n", "٥", "n must be a number"),
        ("n", '"5,0"', "n must be a number"),
        ("n", "9" * 5000, "digits"),
        ("b", "yes", "b must be true or false"),
        ("b", "1", "b must be true or false"),
        ("l", "{}", "l must be a JSON list, not an object"),
        ("l", "[NaN]", "l must be a JSON list: a value is NaN"),
        ("l", '"[{""a"":1,""a"":2}]"', "key 'a' is given twice"),
        ("l", '"[""\\u0000""]"', "NUL"),
        ("t", "a\x00b", "NUL"),
        ("t", "a,b", "5 cells, and the header has 4"),
    ],
)
def test_a_row_is_refused_between_two_good_ones(column: str, cell: str, words: str, tmp_path: Path) -> None:
    cells = ",".join(cell if name == column else "" for name in "nblt")
    file = written(tmp_path, f"n,b,l,t\n1,,,\n{cells}\n2,,,\n".encode())
    first, second, third = read(file, numbers=("n",), booleans=("b",), lists=("l",))
    assert isinstance(first, Row)
    assert isinstance(third, Row)
    assert isinstance(second, BadLine)
    assert (second.origin, second.verdict, third.origin) == (f"{file}:3", "bad", f"{file}:4")
    assert words in second.reason
    assert second.raw == cells.encode() + b"\n"


def test_too_few_cells_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    file = written(tmp_path, b'x,y\n"a\nb"\n"c\n\xe9",d\ne,f')
    short, latin, good = read(file)
    assert isinstance(short, BadLine)
    assert (short.origin, short.reason) == (f"{file}:2", "1 cells, and the header has 2")
    assert isinstance(latin, BadLine)
    assert latin.origin == f"{file}:4"
    assert f"byte 0xe9 at byte offset {file.read_bytes().index(0xE9)} of the file" in latin.reason
    assert isinstance(good, Row)
    assert (good.origin, good.data) == (f"{file}:6", {"x": "e", "y": "f"})


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "no rows: the file is empty or blank"),
        (b"\n\n", 3, "no rows: the file is empty or blank"),
        (b"x,y\n", 2, "no rows: the file has only a header"),
        (b"x,x\n1,2\n", 1, "the header has the column 'x' twice"),
        (b"x,,z\n1,2,3\n", 1, "column 2 of the header has no name"),
        (b"\xe9,y\n1,2\n", 1, "not UTF-8"),
        (b'x,y\n1,2\n3,"4\n5,6\n', 3, "a quote opens in the row that starts here and doesn't close"),
        (b'x,y\n1,"2"3\n', 2, "follows a closing quote"),
        (b"x,y\r1,2\r", 1, "a carriage return is inside an unquoted cell"),
        ("x,y\n1,2\n".encode("utf-16"), 1, "UTF-16"),
        (b"PK\x03\x04xlsx", 1, "Excel"),
        (gzip.compress(b"x,y\n1,2\n", mtime=0)[:-3], 3, "truncated"),
        (gzip.compress(b'x,y\n1,"2\n', mtime=0)[:-3], 3, "truncated"),
        (gzip.compress(b"x,y\n1,2\n", mtime=0) + b"junk", 3, "damaged"),
    ],
)
def test_faults_that_spoil_the_file(content: bytes, line: int, words: str, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    (*_, fault) = read(file)
    assert isinstance(fault, BadLine)
    assert (fault.verdict, fault.origin) == ("fatal", f"{file}:{line}")
    assert words in fault.reason


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    file = written(tmp_path, b"rating,y\n1,2\n")
    (fault,) = read(file, numbers=("ratingg",))
    assert isinstance(fault, BadLine)
    assert "no column 'ratingg', declared by a setting of feedback_source.csv (numbers, ...), did you mean 'rating'?" in fault.reason
    for wrong, words in (({"numbers": ("y",), "lists": ("y",)}, "twice"), ({"delimiter": '"'}, "one character")):
        with pytest.raises(ConfigError, match=words):
            read(file, **wrong)


def test_the_delimiter_follows_the_name(tmp_path: Path) -> None:
    for name in ("a.tsv", "b.tsv.gz", "c.csv"):
        content = b"x,\ty\n1\t2\n" if "tsv" in name else b"x,y\n1,2\n"
        written(tmp_path, gzip.compress(content, mtime=0) if name.endswith("gz") else content, name)
    assert [list(item.data) for item in read(tmp_path) if isinstance(item, Row)] == [["x,", "y"], ["x,", "y"], ["x", "y"]]


def test_a_row_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    long = b'"' + b"line\n" * 100 + b'"'
    file = written(tmp_path, b"x\n1\n" + long + b"\n2\n")
    assert len(read(file, max_row_bytes=len(long) + 1)) == 3
    (_, fault) = read(file, max_row_bytes=len(long))
    assert isinstance(fault, BadLine)
    assert (fault.verdict, fault.origin) == ("fatal", f"{file}:3")
    assert "longer than the limit" in fault.reason


@pytest.mark.parametrize("bomb", [b"\x00", b"\n", b"x"])
def test_a_bomb_is_never_held(bomb: bytes, tmp_path: Path) -> None:
    file = written(tmp_path, gzip.compress(b'x\n"', mtime=0) + gzip.compress(bomb * (50 << 20), 1, mtime=0))
    tracemalloc.start()
    try:
        (fault,) = read(file, max_row_bytes=1 << 17)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(fault, BadLine)
    assert fault.verdict == "fatal"


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path, b"x\n" + b"y" * 1_000_000))
    assert isinstance(row, Row)
    assert len(row.data["x"]) == 1_000_000


def test_pairs_of_a_table_are_those_of_json_lines(tmp_path: Path) -> None:
    rows = [{"prompt": "a, b", "chosen": 'say "x"', "rejected": "line\nline"}, {"prompt": "=1+1", "chosen": "é", "rejected": "y"}]
    text = io.StringIO()
    writer = library.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    feedback = read_feedback(csv(path=str(written(tmp_path, text.getvalue().encode()))), [PairwiseFormat()]).feedback
    assert [(f.prompt, f.responses) for f in feedback] == [(r["prompt"], (r["chosen"], r["rejected"])) for r in rows]
    assert json.dumps([f.origin for f in feedback]) == json.dumps([f"{tmp_path}/f.csv:{line}" for line in (2, 4)])


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "latin-1"])
def test_other_encodings_are_read_by_name(encoding: Any, tmp_path: Path) -> None:
    file = written(tmp_path, "prompt,rating\r\nÄpfel für fünf,4\r\n".encode(encoding))
    (row,) = read(file, encoding=encoding, numbers=("rating",))
    assert isinstance(row, Row)
    assert row.data == {"prompt": "Äpfel für fünf", "rating": 4}


def test_a_file_in_another_encoding_names_the_setting(tmp_path: Path) -> None:
    for content in ("prompt\nÄpfel\n".encode("cp1252"), "prompt\nÄpfel\n".encode("utf-16")):
        line = read(written(tmp_path, content))[0]
        assert isinstance(line, BadLine)
        assert "feedback_source.csv.encoding=" in line.reason
    line = read(written(tmp_path, "prompt\nÄpfel\n".encode("cp1252")), encoding="utf-16")[0]
    assert isinstance(line, BadLine)
    assert line.verdict == "fatal"


def test_decimal_commas_and_dates_are_read_as_declared(tmp_path: Path) -> None:
    file = written(tmp_path, b"time;rating\n31.01.2025 14:05;3,5\n31.02.2025 14:05;4\n")
    first, second = read(file, delimiter=";", decimal=",", numbers=("rating",), dates={"time": "%d.%m.%Y %H:%M"})
    assert isinstance(first, Row)
    assert first.data == {"time": "2025-01-31T14:05:00", "rating": 3.5}
    assert isinstance(second, BadLine)
    assert "feedback_source.csv.dates" in second.reason
    bad = read(file, delimiter=";", numbers=("rating",))[0]
    assert isinstance(bad, BadLine)
    assert "feedback_source.csv.decimal=','" in bad.reason


def test_an_unnamed_first_column_is_the_index_of_pandas(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path, b",prompt\n0,a\n"))
    assert isinstance(row, Row)
    assert row.data == {"column 1": "0", "prompt": "a"}
