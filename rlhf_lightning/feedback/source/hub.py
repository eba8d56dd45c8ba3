"""Data sets of the Hugging Face Hub and local folders in its formats."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import ConfigError, DataError, UserError, import_extra, summarize_exception
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.feedback.strict_json import check_texts
from rlhf_lightning.registry import register

BATCH = 1000
TEXT_FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".gz", ".bz2", ".xz", ".zst", ".zip")

METADATA_FILES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
READ_AS_TEXT = ("json", "csv", "text")


@register("feedback_source", "hub")
@source
def hub(
    path: str, *, split: str = "train", config: str | None = None, revision: str | None = None, streaming: bool = False
) -> Iterator[Row | BadLine]:
    """Rows of a Hugging Face data set, by its name on the Hub or a local folder.

    A local folder contains the output of `save_to_disk`, or Parquet files as `load_dataset` reads them; it is read in place, without a
    copy in the cache. Folders with JSON or CSV files are rejected: the library fills in fields and changes types while it reads them,
    the sources jsonl, json and csv don't. For data sets on the Hub with such files a note says so. Code of a data set is never run.

    The library gives every row every field, so null fields, also inside objects, count as absent. Dates and times become ISO 8601
    text. NaN, infinities, NUL, bytes, images and other values that JSON lacks make a bad line. Class labels stay numbers, as they are
    stored. A row's origin is PATH/SPLIT:NUMBER, counted from 1.

    Args:
        path: a name on the Hub ("Anthropic/hh-rlhf"), a local folder or a Parquet file. Existing paths are never looked up on the Hub.
        split: name of the data set's split ("train").
        config: name of the data set's configuration.
        revision: branch, tag or commit on the Hub.
        streaming: read while downloading, without a local copy.

    Raises:
        ConfigError: the library isn't installed, or a setting that doesn't apply to a local folder.
        DataError: no such data set or split, a folder of JSON or CSV files, or data that the library can't read.
    """
    yield from read_data_set(DataSet(path, split, config, revision, streaming))


@dataclass(frozen=True)
class DataSet:
    """A split of a data set on the Hub or in a folder, and the names of its settings for messages."""

    path: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    streaming: bool = False
    path_setting: str = "feedback_source.hub.path"
    split_setting: str = "feedback_source.hub.split"


def read_data_set(data_set: DataSet) -> Iterator[Row | BadLine]:
    """Rows of a data set (`hub`)."""
    loaded, path = _load(data_set), data_set.path
    split_path = f"{path}/{data_set.split}"
    if getattr(loaded, "builder_name", None) in READ_AS_TEXT:
        warning = "the data set consists of text files, in which the datasets library fills in absent fields and may change types; "
        yield BadLine(
            split_path, warning + "for strict reading download them and use feedback_source=jsonl, json or csv", verdict="allowed"
        )
    number = 0
    for data in _rows(loaded, data_set):
        number += 1
        yield _row(data, f"{split_path}:{number}")
    if not number:
        yield BadLine(f"{split_path}:1", "no rows: the split is empty", verdict="fatal")


def _load(data: DataSet) -> Any:
    datasets = import_extra("datasets", f"{data.path_setting}={data.path!r}", "hub")
    try:
        if data.path.startswith(("/", ".", "~")) or Path(data.path).exists():
            if data.config is not None or data.revision is not None:
                raise ConfigError(f"{data.path_setting}: {data.path} is a path, and has no config or revision; take these settings out")
            return _of_path(datasets, data)
        return datasets.load_dataset(data.path, name=data.config, split=data.split, revision=data.revision, streaming=data.streaming)
    except UserError:
        raise
    except Exception as error:
        raise DataError(
            f"{data.path_setting}={data.path!r}, split {data.split!r}, can't be loaded: {summarize_exception(error)}"
        ) from error


def _of_path(datasets: Any, data: DataSet) -> Any:
    path, split = Path(data.path), data.split
    if not path.exists():
        raise DataError(f"{data.path_setting}={data.path!r}: no such folder")
    if (path / "dataset_dict.json").exists():
        parts = datasets.load_from_disk(str(path))
        if split not in parts:
            raise DataError(f"{path} has no split {split!r}; there are: {', '.join(parts)}")
        return parts[split]
    if (path / "state.json").exists():
        data_set = datasets.load_from_disk(str(path))
        if data_set.split is not None and str(data_set.split) != split:
            raise DataError(f"{path} is the split {str(data_set.split)!r}, not {split!r}: add {data.split_setting}={data_set.split}")
        return data_set
    _check_text_free(sorted(path.rglob("*")) if path.is_dir() else [path], data)
    if path.is_dir():
        return datasets.load_dataset(str(path), split=split, streaming=True)
    return datasets.load_dataset("parquet", data_files={split: str(path)}, split=split, streaming=True)


def _check_text_free(files: list[Path], data: DataSet) -> None:
    """Raise DataError for files that other sources read strictly, or if there is no Parquet file."""
    text = next((file for file in files if file.is_file() and file.suffix.lower() in TEXT_FILES and file.name not in METADATA_FILES), None)
    if text is not None:
        raise DataError(
            f"{text} is no Parquet file, and the datasets library would fill in fields and change types in it; "
            "use feedback_source=jsonl, json or csv for such files"
        )
    if not any(file.suffix == ".parquet" for file in files):
        raise DataError(f"{data.path_setting}={data.path!r} holds no Parquet files and nothing that save_to_disk wrote")


def _rows(loaded: Any, data: DataSet) -> Iterator[dict[str, Any]]:
    """Yield the rows as Arrow stores them, undecoded: images and audio stay bytes."""
    try:
        for table in loaded.with_format("arrow").iter(batch_size=BATCH):
            yield from table.to_pylist()
    except Exception as error:
        raise DataError(f"{data.path_setting}={data.path!r} can't be read to its end: {summarize_exception(error)}") from error


def _row(data: dict[str, Any], origin: str) -> Row | BadLine:
    try:
        values = {name: _plain(value, name) for name, value in data.items() if value is not None}
        check_texts(values)
    except ValueError as error:
        return BadLine(origin, str(error), json.dumps(data, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace"))
    return Row(values, origin, json.dumps(values, ensure_ascii=False).encode(), intact=True)


def _plain(value: Any, name: str) -> Any:
    """Convert a value to JSON's types. Raises ValueError naming the field for other types."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dict):
        return {key: _plain(inner, f"{name}.{key}") for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    description = repr(value) if isinstance(value, float) else f"of type {type(value).__name__}"
    raise ValueError(f"{name} is {description}, which JSON hasn't; take it out or turn it into a number or text")
