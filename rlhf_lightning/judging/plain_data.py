"""Plain data on the way to and from untrusted programs: how values are written, checked and compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from rlhf_lightning.errors import DataError

MAX_DEPTH = 100
SMALL = 2**53
"""From here integers are written in hexadecimal, which has no limit of digits."""
CONTAINERS = ("list", "tuple", "set", "frozenset", "dict")
SETS = ("set", "frozenset")
TAGS = {"__tuple__": "tuple", "__set__": "set", "__frozenset__": "frozenset", "__bytes__": "bytes", "__complex__": "complex"}
"""Keys of single-key objects in JSON files that stand for what JSON doesn't have."""
RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Tolerance of floats: largest difference relative to the larger one, or absolute."""


def to_wire(value: Any) -> Any:
    """Write a value of a JSON file as the sandbox reads it; arrays begin with their kind.

    Raises:
        DataError: a tag with a wrong value.
    """
    if isinstance(value, int) and not isinstance(value, bool) and not -SMALL < value < SMALL:
        return ["int", hex(value)]
    if isinstance(value, list):
        return ["list", *map(to_wire, value)]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value)) if len(value) == 1 else ""
    if tag not in TAGS:
        return ["dict", *(to_wire(part) for item in value.items() for part in item)]
    content = value[tag]
    if tag == "__bytes__" and isinstance(content, str):
        return ["bytes", content]
    if tag == "__bytes__" or not isinstance(content, list) or (tag == "__complex__" and len(content) != 2):
        raise DataError(
            f"{tag} stands for a {TAGS[tag]}: its value is {'a text of hexadecimal digits' if tag == '__bytes__' else 'a list'}"
        )
    return [TAGS[tag], *map(to_wire, content)]


def is_plain(wire: Any, depth: int = 0) -> bool:
    """Return whether untrusted JSON is a value as `to_wire` writes it, at most MAX_DEPTH deep."""
    if wire is None or isinstance(wire, bool | int | float | str):
        return True
    if not isinstance(wire, list) or not wire or not isinstance(wire[0], str) or depth > MAX_DEPTH:
        return False
    kind, parts = wire[0], wire[1:]
    if kind in CONTAINERS:
        return all(is_plain(part, depth + 1) for part in parts) and (kind != "dict" or len(parts) % 2 == 0)
    if kind == "int":
        return len(parts) == 1 and isinstance(parts[0], str) and _is_hexadecimal(parts[0])
    if kind == "match":
        return len(parts) == 1 and isinstance(parts[0], str)
    if kind in ("bytes", "bytearray"):
        return len(parts) == 1 and isinstance(parts[0], str) and set(parts[0]) <= set("0123456789abcdef")
    if kind == "complex":
        return len(parts) == 2 and all(isinstance(part, float) for part in parts)
    return kind == "range" and len(parts) == 3 and all(isinstance(part, int) for part in parts)


def is_equal(expected: Any, value: Any) -> bool:
    """Compare an expected value of a JSON file with a program's, both as `to_wire` writes them.

    Kinds count: true is not 1, a list is no set. What JSON can't tell apart is equal: a tuple where a list is expected, and 1 as a
    dictionary's key where "1" is. A float is expected up to a relative 1e-9 or an absolute 1e-12, an integer exactly; NaN equals NaN.
    Members of sets and keys are compared exactly.
    """
    if _is_number(expected):
        return _is_number(value) and _equal_numbers(_number(expected), _number(value))
    if not isinstance(expected, list) or not isinstance(value, list):
        return type(expected) is type(value) and bool(expected == value)
    kind, parts = value[0], value[1:]
    if expected[0] in SETS:
        return kind in SETS and {_canonical(part) for part in expected[1:]} == {_canonical(part) for part in parts}
    if expected[0] == "dict":
        return kind == "dict" and len(parts) == len(expected) - 1 and _equal_items(expected[1:], parts)
    if expected[0] in ("list", "tuple"):
        kinds = (expected[0], "tuple")
        return kind in kinds and len(parts) == len(expected) - 1 and all(map(is_equal, expected[1:], parts))
    return kind != "match" and bool(expected == value)


def _equal_items(expected: list[Any], items: list[Any]) -> bool:
    """Compare two dictionaries' alternating keys and values, of the same number."""
    values = dict(_items(items))
    texts = {_json_key(key): item for key, item in zip(items[::2], items[1::2], strict=True)}
    for key, (canonical, wanted) in zip(expected[::2], _items(expected), strict=True):
        if canonical in values:
            actual = values[canonical]
        elif isinstance(key, str) and key in texts:
            actual = texts[key]
        else:
            return False
        if not is_equal(wanted, actual):
            return False
    return len(values) == len(items) // 2


def _items(items: list[Any]) -> Iterator[tuple[str, Any]]:
    return zip(map(_canonical, items[::2]), items[1::2], strict=True)


def _json_key(key: Any) -> Any:
    """The text of a dictionary's key in JSON; None for a key that JSON doesn't take."""
    if isinstance(key, str | list):
        return None
    return json.dumps(key)


def _canonical(wire: Any) -> str:
    """A text that is the same for equal values; a digest for containers, so that it stays short."""
    if _is_number(wire):
        number = _number(wire)
        return hex(int(number)) if isinstance(number, int) or number.is_integer() else repr(number)
    if not isinstance(wire, list):
        return json.dumps(wire)
    parts = [_canonical(part) for part in wire[1:]]
    text = json.dumps([wire[0].removeprefix("frozen"), sorted(set(parts)) if wire[0] in SETS else parts])
    return hashlib.sha256(text.encode()).hexdigest()


def _is_number(wire: Any) -> bool:
    return (isinstance(wire, int | float) and not isinstance(wire, bool)) or (isinstance(wire, list) and wire[0] == "int")


def _number(wire: Any) -> int | float:
    return int(wire[1], 16) if isinstance(wire, list) else wire


def _equal_numbers(expected: int | float, value: int | float) -> bool:
    if isinstance(expected, int) or expected == value:
        return expected == value
    if math.isnan(expected):
        return isinstance(value, float) and math.isnan(value)
    try:
        return math.isclose(expected, value, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except OverflowError:
        return False


def _is_hexadecimal(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.startswith("0x") and len(digits) > 2 and set(digits[2:]) <= set("0123456789abcdef")
