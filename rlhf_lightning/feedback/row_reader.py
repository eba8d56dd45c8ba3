"""Rows of data files of any kind, for readers that need every row."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_files import files_at, open_stream
from rlhf_lightning.feedback.source.csv import read_table
from rlhf_lightning.feedback.source.hub import DataSet, read_data_set
from rlhf_lightning.feedback.source.json import read_json_array
from rlhf_lightning.feedback.source.jsonl import read_json_lines

TABLES = (".csv", ".tsv")
KINDS = (".jsonl", ".json", ".ndjson", *TABLES, ".parquet")
PATTERNS = tuple(f"*{kind}{packed}" for kind in KINDS for packed in ("", ".gz"))
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def read_rows(data: DataSet) -> Iterator[Row]:
    """Read the rows of a file, of a folder or of a data set on the Hub.

    Files are JSON Lines, JSON arrays, CSV or Parquet, plain or gzipped; folders hold those, read by name, or what `save_to_disk` wrote.
    Text files are told apart by name (CSV) and by their first letter (JSON).

    Raises:
        DataError: nothing at the path, or a row that can't be read, with its file and line.
        ConfigError: a data set without the datasets library.
    """
    for item in _items(data):
        if isinstance(item, Row):
            yield item
        elif item.verdict != "allowed":
            raise DataError(f"{item.origin}: {item.reason}")


def _items(data: DataSet) -> Iterator[Row | BadLine]:
    if is_data_set(data.path):
        yield from read_data_set(data)
        return
    for file in files_at(data.path, PATTERNS, data.path_setting):
        name = file.name.lower().removesuffix(".gz")
        if name.endswith(TABLES):
            yield from read_table(file)
            continue
        start = _start(file)
        if start.startswith(b"PAR1"):
            yield from read_data_set(DataSet(str(file), data.split, path_setting=data.path_setting, split_setting=data.split_setting))
        else:
            yield from read_json_array(file) if start.startswith(b"[") else read_json_lines(file)


def is_data_set(path: str) -> bool:
    """True for a name on the Hub and for a folder of the datasets library."""
    with contextlib.suppress(OSError, ValueError):
        folder = Path(path)
        if folder.is_dir():
            return any((folder / name).exists() for name in ("dataset_dict.json", "state.json")) or any(folder.rglob("*.parquet"))
        return not folder.exists() and HUB_NAME.fullmatch(path) is not None and not path.removesuffix(".gz").endswith(KINDS)
    return False


def _start(file: Path) -> bytes:
    """Return the first bytes of an unpacked file without byte order mark and blanks."""
    with open_stream(file) as stream:
        return next(stream.blocks(), b"")[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
