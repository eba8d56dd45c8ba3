"""Excel workbooks, a row per record."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_files import files_at
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.feedback.unknown_fields import list_names
from rlhf_lightning.registry import register


@register("feedback_source", "xlsx")
@source
def xlsx(path: str, *, sheet: str | None = None, header_row: PositiveInt = 1) -> Iterator[Row | BadLine]:
    """Rows of a sheet of Excel workbooks, with the types of the cells.

    Dates become ISO 8601, empty cells absent fields. Formulas give the value that was saved with them. Needs
    `pip install 'rlhf-lightning[xlsx]'`.

    Args:
        path: a file, a folder (its *.xlsx, by name, not its subfolders) or a glob pattern (`**` descends).
        sheet: name of the sheet; by default the first.
        header_row: number of the row with the names of the columns, from 1.

    Raises:
        ConfigError: openpyxl is not installed.
        DataError: nothing at `path`, or a file that can't be opened.
    """
    for file in files_at(path, ("*.xlsx",), "feedback_source.xlsx.path"):
        yield from read_sheet(file, sheet, header_row)


def read_sheet(file: Path, sheet: str | None = None, header_row: int = 1) -> Iterator[Row | BadLine]:
    """Rows of one workbook (`xlsx`), then a fatal bad line if it is broken."""
    try:
        import openpyxl
    except ModuleNotFoundError as cause:
        raise ConfigError(f"{file}: workbooks need openpyxl: pip install 'rlhf-lightning[xlsx]', or save the sheet as CSV") from cause
    with file.open("rb") as handle:
        try:
            book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
        except Exception as error:  # of zip, XML or openpyxl itself
            yield BadLine(
                f"{file}:1", f"not an Excel workbook (.xlsx; {error}): tables of text are read by feedback_source=csv", verdict="fatal"
            )
            return
        if sheet is not None and sheet not in book.sheetnames:
            names = list_names(book.sheetnames)
            yield BadLine(f"{file}:1", f"no sheet {sheet!r} (feedback_source.xlsx.sheet); there are: {names}", verdict="fatal")
            return
        yield from _rows(file, book[sheet or book.sheetnames[0]], header_row)


def _rows(file: Path, sheet: Any, header_row: int) -> Iterator[Row | BadLine]:
    table = sheet.iter_rows(min_row=header_row, values_only=True)
    header = ["" if cell is None else str(cell).strip() for cell in next(table, ())]
    while header and not header[-1]:
        header.pop()
    if fault := _header_fault(header):
        yield BadLine(f"{file}:{header_row}", fault, verdict="fatal")
        return
    count = 0
    for number, cells in enumerate(table, start=header_row + 1):
        values = {name: _plain(cell) for name, cell in zip(header, cells, strict=False) if cell not in (None, "")}
        if values:
            count += 1
            yield Row(values, f"{file}:{number}")
    if not count:
        yield BadLine(f"{file}:{header_row}", "no rows: the sheet has only a header", verdict="fatal")


def _header_fault(header: list[str]) -> str:
    """Why these cells can't be the names of columns; "" if they can."""
    if not header:
        return "no header: the row is empty (feedback_source.xlsx.header_row)"
    if "" in header:
        return f"column {header.index('') + 1} of the header has no name"
    repeated = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    return f"the header has the column {list_names(repeated)} twice" if repeated else ""


def _plain(cell: Any) -> Any:
    """A cell's value in JSON's types."""
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if isinstance(cell, bool | int | float | str) else str(cell)
