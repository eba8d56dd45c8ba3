"""Settings of all sources: paths with weights, a limit, fields to explode, drop and rename."""

from __future__ import annotations

import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from rlhf_lightning.config.schema import FilePath
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import BadLine, Row, describe_value
from rlhf_lightning.feedback.unknown_fields import suggest_name

Items = Iterator[Row | BadLine]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def source(read: Callable[..., Items]) -> Callable[..., Items]:
    """Make a source of a function that reads one path, `read(path, *, settings)`.

    The source takes the settings of `read` and of `read_paths`, all by keyword.
    """
    reader_settings = _settings(read)

    @functools.wraps(read)
    def rows(**settings: Any) -> Items:
        arguments = {name: settings.pop(name) for name in reader_settings if name in settings}
        return read_paths(functools.partial(read, **arguments), **settings)

    path_settings = _settings(read_paths)
    settings_by_name = {"path": path_settings.pop("path")} | reader_settings | path_settings
    rows.__signature__ = inspect.Signature(list(settings_by_name.values()))  # type: ignore[attr-defined]
    rows.__annotations__ = {name: parameter.annotation for name, parameter in settings_by_name.items()} | {"return": Items}
    rows.__doc__ = f"{inspect.getdoc(read)}\n\nAnd what every source takes:\n\n{inspect.getdoc(read_paths)}"
    return rows


def _settings(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.replace(annotation=hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}


def read_paths(
    read: Callable[[str], Items],
    *,
    path: FilePath | tuple[FilePath, ...],
    limit: PositiveInt | None = None,
    weight: Weight | tuple[Weight, ...] = 1.0,
    name: str | None = None,
    explode: tuple[str, ...] = (),
    ignore_fields: tuple[str, ...] = (),
    rename: dict[str, str] | None = None,
) -> Items:
    """Read the rows of one or several paths, in their order.

    A field may be named by its path inside the row ("meta.text"). Rows are exploded first, then fields are dropped, then renamed.

    Args:
        path: the path to read, or a list of paths.
        limit: stop after this many rows of all paths together, counted before they are exploded.
        weight: how much the feedback counts in the reward model; one number, or one for each path.
        name: the name of the data set, for Feedback.source.
        explode: fields that hold a list; a row becomes one row per item, with the item in the list's place. Fields are exploded in
            turn: [responses, responses.reviews]. An empty list makes no row, and is reported.
        ignore_fields: fields to drop from every row.
        rename: new names of fields by their old ones, {old: new}; rejected if no row has the old name or a row already has the new one.

    Raises:
        ConfigError: no path, one given twice, or more or fewer weights than paths.
    """
    paths = (path,) if isinstance(path, str) else tuple(path)
    weights = tuple(weight) if isinstance(weight, Sequence) else (weight,) * len(paths)
    if not paths or not all(paths):
        raise ConfigError(f"feedback_source: path={path!r} must name at least one path, and none may be empty")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"feedback_source: path={list(paths)} names a path twice; use weight to make it count more")
    if len(weights) != len(paths):
        raise ConfigError(f"feedback_source: weight={list(weights)} has {len(weights)} weights for {len(paths)} paths; give one for each")
    return _transform_rows(read, paths, weights, limit, _RowTransform(name, tuple(explode), tuple(ignore_fields), dict(rename or {})))


def _transform_rows(
    read: Callable[[str], Items], paths: tuple[str, ...], weights: tuple[float, ...], limit: int | None, transform: _RowTransform
) -> Items:
    remaining = limit if limit is not None else -1
    for path, weight in zip(paths, weights, strict=True):
        plain = transform.is_plain and weight == 1
        for item in read(path):
            if isinstance(item, BadLine):
                yield item
                continue
            if plain:
                yield item
            else:
                yield from transform.rows(item, weight)
            remaining -= 1
            if remaining == 0:
                break
        if remaining == 0:
            break
    yield from transform.bad_lines(", ".join(paths))


@dataclass
class _RowTransform:
    name: str | None
    explode: tuple[str, ...]
    ignored: tuple[str, ...]
    renamed: dict[str, str]
    renamed_fields: set[str] = field(default_factory=set)
    first_fields: list[str] = field(default_factory=list)
    empty_rows: int = 0

    @property
    def is_plain(self) -> bool:
        return self.name is None and not (self.explode or self.ignored or self.renamed)

    def rows(self, row: Row, weight: float) -> list[Row] | list[BadLine]:
        """Transform a row into its parts, or into one bad line."""
        try:
            parts = _explode(row.data, self.explode)
            self.empty_rows += not parts
            parts = [self._drop_and_rename(data) for data in parts]
        except DataError as error:
            return [BadLine(row.origin, str(error), row.raw)]
        return [Row(data, row.origin, row.raw, row.where, weight, self.name, row.intact and data is row.data) for data in parts]

    def bad_lines(self, path: str) -> Iterator[BadLine]:
        """Yield the problems that only all rows together show."""
        if self.empty_rows:
            yield BadLine(path, f"{self.empty_rows} rows have an empty list in {list(self.explode)} and make no row", verdict="allowed")
        missing = [old for old in self.renamed if old not in self.renamed_fields]
        if missing and self.first_fields:
            missing_fields = "; ".join(f"no row has the field {old!r}{suggest_name(old, self.first_fields)}" for old in missing)
            yield BadLine(path, f"feedback_source.NAME.rename: {missing_fields}", verdict="fatal")

    def _drop_and_rename(self, data: dict[str, Any]) -> dict[str, Any]:
        for name in self.ignored:
            if (match := _pop_field(data, name)) is not None:
                _, data = match
        values = {}
        self.first_fields = self.first_fields or list(data)
        for old in self.renamed:
            if (match := _pop_field(data, old)) is not None:
                values[old], data = match
        self.renamed_fields |= values.keys()
        for old, value in values.items():
            new = self.renamed[old]
            if new in data:
                raise DataError(f"field {old!r} can't be renamed to {new!r}: the row has that already")
            data = data | {new: value}
        return data


def _explode(data: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Explode the fields in turn: one row per item of a field's list."""
    rows = [data]
    for name in names:
        rows = list(itertools.chain.from_iterable(_explode_field(row, name) for row in rows))
    return rows


def _explode_field(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    match = _pop_field(data, name)
    if match is None:
        raise DataError(f"field {name!r}, of which each item is to be a row, is missing{suggest_name(name, data)}")
    items = match[0]
    if not isinstance(items, list):
        raise DataError(f"{name} must be a list, of which each item is to be a row, not {describe_value(items)}")
    return [_set_field(data, name, item) for item in items]


def _pop_field(data: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]] | None:
    """Return a field's value and a copy of the row without it; None if absent."""
    if name in data:
        return data[name], {key: value for key, value in data.items() if key != name}
    first, dot, rest = name.partition(".")
    inner = data.get(first)
    if not dot or not isinstance(inner, dict) or (match := _pop_field(inner, rest)) is None:
        return None
    value, remaining = match
    if remaining:
        return value, data | {first: remaining}
    return value, {key: value for key, value in data.items() if key != first}


def _set_field(data: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return the row with another value in an existing field."""
    if name in data:
        return data | {name: value}
    first, _, rest = name.partition(".")
    return data | {first: _set_field(data[first], rest, value)}
