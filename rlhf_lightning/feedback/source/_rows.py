"""What every source can do with its rows: take several paths with weights, stop early, name, rename, leave out and take apart."""

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
from rlhf_lightning.feedback.row import BadLine, Row, kind_of
from rlhf_lightning.feedback.unknown_fields import near

Items = Iterator[Row | BadLine]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def source(read: Callable[..., Items]) -> Callable[..., Items]:
    """Make a source of a function that reads one path: `read(path, *, its own settings)`.

    The source takes `read`'s settings and those of `of_paths`, all by keyword.
    """
    own = _settings(read)

    @functools.wraps(read)
    def rows(**settings: Any) -> Items:
        mine = {name: settings.pop(name) for name in own if name in settings}
        return of_paths(functools.partial(read, **mine), **settings)

    shared = _settings(of_paths)
    both = {"path": shared.pop("path")} | own | shared
    rows.__signature__ = inspect.Signature(list(both.values()))  # type: ignore[attr-defined]
    rows.__annotations__ = {name: parameter.annotation for name, parameter in both.items()} | {"return": Items}
    rows.__doc__ = f"{inspect.getdoc(read)}\n\nAnd what every source takes:\n\n{inspect.getdoc(of_paths)}"
    return rows


def _settings(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.replace(annotation=hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}


def of_paths(
    read: Callable[[str], Items],
    *,
    path: FilePath | tuple[FilePath, ...],
    limit: PositiveInt | None = None,
    weight: Weight | tuple[Weight, ...] = 1.0,
    name: str | None = None,
    each: tuple[str, ...] = (),
    ignore_fields: tuple[str, ...] = (),
    rename: dict[str, str] | None = None,
) -> Items:
    """The rows of one or several paths, in their order.

    A field may be named by its path inside the row ("meta.text"). Rows are taken apart first, then fields are dropped, then renamed.

    Args:
        path: what to read, or a list of it.
        limit: stop after this many rows of all paths together, counted before they are taken apart.
        weight: how much the feedback counts in the reward model; one number, or one for each path.
        name: the name of the data set, for Feedback.source.
        each: fields that hold a list; a row becomes one row per item, with the item in the list's place. Of several, a later one is
            looked for in the rows that the earlier ones made: [responses, responses.reviews]. An empty list makes no row, and is told.
        ignore_fields: fields to drop from every row.
        rename: new names of fields by their old ones, {old: new}; a field that no row has, or a new name that a row has already, is
            refused.

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
    return _shaped(read, paths, weights, limit, _Shape(name, tuple(each), tuple(ignore_fields), dict(rename or {})))


def _shaped(read: Callable[[str], Items], paths: tuple[str, ...], weights: tuple[float, ...], limit: int | None, shape: _Shape) -> Items:
    left = limit if limit is not None else -1
    for place, weight in zip(paths, weights, strict=True):
        plain = shape.is_plain and weight == 1
        for item in read(place):
            if isinstance(item, BadLine):
                yield item
                continue
            if plain:
                yield item
            else:
                yield from shape.rows(item, weight)
            left -= 1
            if left == 0:
                break
        if left == 0:
            break
    yield from shape.findings(", ".join(paths))


@dataclass
class _Shape:
    name: str | None
    each: tuple[str, ...]
    ignored: tuple[str, ...]
    renamed: dict[str, str]
    found: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    empty: int = 0

    @property
    def is_plain(self) -> bool:
        return self.name is None and not (self.each or self.ignored or self.renamed)

    def rows(self, row: Row, weight: float) -> list[Row] | list[BadLine]:
        """What becomes of a row: all of its parts, or why it is refused as a whole."""
        try:
            parts = _apart(row.data, self.each)
            self.empty += not parts
            parts = [self._with_own_fields(data) for data in parts]
        except DataError as error:
            return [BadLine(row.origin, str(error), row.raw)]
        return [Row(data, row.origin, row.raw, row.where, weight, self.name, row.intact and data is row.data) for data in parts]

    def findings(self, path: str) -> Iterator[BadLine]:
        """What can only be said of all rows."""
        if self.empty:
            yield BadLine(path, f"{self.empty} rows have an empty list in {list(self.each)} and make no row", verdict="allowed")
        missing = [old for old in self.renamed if old not in self.found]
        if missing and self.seen:
            told = "; ".join(f"no row has the field {old!r}{near(old, self.seen)}" for old in missing)
            yield BadLine(path, f"rename: {told}", verdict="fatal")

    def _with_own_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        for name in self.ignored:
            if (found := _taken(data, name)) is not None:
                _, data = found
        taken = {}
        self.seen = self.seen or list(data)
        for old in self.renamed:
            if (found := _taken(data, old)) is not None:
                taken[old], data = found
        self.found |= taken.keys()
        for old, value in taken.items():
            new = self.renamed[old]
            if new in data:
                raise DataError(f"field {old!r} can't be renamed to {new!r}: the row has that already")
            data = data | {new: value}
        return data


def _apart(data: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each item of the list in a field, for one field after the other."""
    rows = [data]
    for name in names:
        rows = list(itertools.chain.from_iterable(_for_each(row, name) for row in rows))
    return rows


def _for_each(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _taken(data, name)
    if found is None:
        raise DataError(f"field {name!r}, of which each item is to be a row, is missing{near(name, data)}")
    if not isinstance(found[0], list):
        raise DataError(f"{name} must be a list, of which each item is to be a row, not {kind_of(found[0])}")
    return [_put(data, name, item) for item in found[0]]


def _taken(data: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]] | None:
    """A field's value, and the row without it and without an object that is empty for it; None where it isn't there.

    The row stays as it is, since parts share objects.
    """
    if name in data:
        return data[name], {key: value for key, value in data.items() if key != name}
    first, dot, rest = name.partition(".")
    inner = data.get(first)
    if not dot or not isinstance(inner, dict) or (found := _taken(inner, rest)) is None:
        return None
    value, without = found
    if without:
        return value, data | {first: without}
    return value, {key: kept for key, kept in data.items() if key != first}


def _put(data: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The row with another value in a field that it has."""
    if name in data:
        return data | {name: value}
    first, _, rest = name.partition(".")
    return data | {first: _put(data[first], rest, value)}
