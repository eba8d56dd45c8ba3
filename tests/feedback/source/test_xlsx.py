"""Workbooks: cells with their types, and faults by file and row."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.xlsx import xlsx

openpyxl = pytest.importorskip("openpyxl")


def book(folder: Path, *rows: list[Any], title: str = "Sheet") -> str:
    workbook = openpyxl.Workbook()
    workbook.active.title = title
    for row in rows:
        workbook.active.append(row)
    workbook.save(folder / "f.xlsx")
    return str(folder / "f.xlsx")


def test_cells_keep_their_types_and_empty_ones_are_absent(tmp_path: Path) -> None:
    moment = datetime.datetime(2025, 1, 31, 14, 5)
    path = book(tmp_path, ["prompt", "rating", "good", "time"], ["a", 4.0, True, moment], ["b", 3.5, None, None], [None] * 4)
    first, second = xlsx(path=path)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (first.data, first.origin) == ({"prompt": "a", "rating": 4, "good": True, "time": "2025-01-31T14:05:00"}, f"{path}:2")
    assert second.data == {"prompt": "b", "rating": 3.5}


@pytest.mark.parametrize(
    ("rows", "settings", "problem"),
    [
        ([["a", "a"], [1, 2]], {}, "twice"),
        ([["a", None, "c"], [1, 2, 3]], {}, "column 2"),
        ([["a"]], {}, "only a header"),
        ([["a"], [1]], {"sheet": "Ratings"}, "feedback_source.xlsx.sheet"),
    ],
)
def test_a_broken_sheet_is_fatal(rows: list[list[Any]], settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    (line,) = xlsx(path=book(tmp_path, *rows), **settings)
    assert isinstance(line, BadLine)
    assert line.verdict == "fatal"
    assert problem in line.reason


def test_a_file_that_is_no_workbook_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "f.xlsx").write_bytes(b"prompt,rating\n")
    (line,) = xlsx(path=str(tmp_path / "f.xlsx"))
    assert isinstance(line, BadLine)
    assert line.verdict == "fatal"
