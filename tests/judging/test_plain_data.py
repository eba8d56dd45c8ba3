"""Comparison of plain data: kinds, tolerance, and what JSON can't tell apart."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.isolation import guest
from rlhf_lightning.judging.plain_data import is_equal, is_plain, to_wire

NAN = float("nan")
EQUAL: list[tuple[Any, Any]] = [
    (1, 1), (1, 1.0), (2.0, 2), (0.3, 0.1 + 0.2), (NAN, NAN), (math.inf, math.inf), (0.0, -0.0), (None, None), ("a\ud800", "a\ud800"),
    ([1, [2]], (1, (2,))), ({"__tuple__": [1, 2]}, (1, 2)), ({"__set__": [1, 2]}, {2, 1}), ({"__set__": [1]}, frozenset([1])),
    ({"1": "a", "true": 2}, {1: "a", "true": 2}), ({"true": 2}, {True: 2}), ({"a": [1]}, {"a": (1,)}), ({"null": 0}, {None: 0}),
    (10**5000, 10**5000), ({"__bytes__": "00ff"}, b"\x00\xff"), ({"__complex__": [1.0, 2.0]}, 1 + 2j),
    ({"__set__": [{"__tuple__": [1, 2]}]}, {(1, 2)}),
]  # fmt: skip
DIFFERENT: list[tuple[Any, Any]] = [
    (True, 1),
    (1, True),
    (0, False),
    (None, 0),
    ("1", 1),
    (1, "1"),
    (1, 1.0000001),
    (10**12 + 1, 1e12),
    (0.5, NAN),
    (NAN, 0.5),
    (0.0, 1e-9),
    (1e308, 10**400),
    (math.inf, 10**400),
    ([1, 2], {1, 2}),
    ({"__set__": [1, 2]}, [1, 2]),
    ({"__tuple__": [1]}, [1]),
    ([1], [1, 2]),
    ([], None),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"1": 1}, {1: 1, "1": 1}),
    ({"a": 1}, [("a", 1)]),
    ({"__set__": [True]}, {1}),
    ("", []),
    ([], ""),
    ([[]], [""]),
    ({"__bytes__": "00"}, "00"),
    (["a"], "a"),
]


def test_equal() -> None:
    assert all(is_plain(guest.encode(value)) for _, value in EQUAL)
    assert [i for i, (expected, value) in enumerate(EQUAL) if not is_equal(to_wire(expected), guest.encode(value))] == []


def test_different() -> None:
    assert [i for i, (expected, value) in enumerate(DIFFERENT) if is_equal(to_wire(expected), guest.encode(value))] == []


@pytest.mark.parametrize(
    "value", [1, -(10**30), [1, (2, {3}), frozenset([4])], {"a": {1: b"x"}, (1,): 1j}, range(3), None, "x", 0.5, bytearray(b"x")]
)
def test_values_survive_the_way(value: Any) -> None:
    decoded = guest.decode(guest.encode(value))
    assert decoded == value
    assert type(decoded) is type(value)


def test_hostile_wire_is_rejected_quickly() -> None:
    assert not any(
        map(is_plain, ([], {}, ["object"], ["int", "1"], ["int", 1], ["dict", 1], ["range", 1], ["bytes", "zz"], ["list", {}], [["list"]]))
    )
    deep: Any = 1
    for _ in range(90):
        deep = ["set", deep, '"\\']
    start = time.process_time()
    assert is_plain(deep)
    assert not is_equal(["set", 1], deep)
    assert not is_equal(["dict", "a", 1], ["dict", deep, 1])
    assert time.process_time() - start < 0.5
    for _ in range(sys.getrecursionlimit()):
        deep = ["list", deep]
    assert not is_plain(deep)


def test_a_wrong_tag_is_named() -> None:
    with pytest.raises(DataError, match=r"__set__.*a list"):
        to_wire([{"__set__": 1}])
