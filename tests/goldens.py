"""What the tables of golden cases share (test_goldens.py of advantage/ and policy/).

A table accounts for every recorded case of its families. A row says how ours is called, for which cases it must be equal (all, unless
`where`) and `because` of what the others differ; a string says why ours has no such function. Every recorded output is compared, or
named in `beside` as having no counterpart. docs/conventions.md says the same in prose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Case = Any
"""conftest's: x the inputs by name, p the parameters, out the recorded outputs."""
Ours = Mapping[str, Tensor | tuple[Tensor, Tensor]]
"""Our value for each recorded output; with a second tensor, compared where that is true."""
Key = tuple[str, str, str]
"""Family, peer, function."""
Row = tuple[Any, ...]
Table = dict[Key, Row | str]


def row(
    ours: Callable[[Case], Ours],
    where: Callable[[Case], bool] | None = None,
    because: str = "",
    tolerance: str = "same",
    beside: frozenset[str] = frozenset(),
) -> Row:
    """What conftest's Goldens.hold takes."""
    return ours, where, because, tolerance, beside


def offered(table: Table) -> list[Key]:
    """The functions that ours has a counterpart of."""
    return [key for key, held in table.items() if not isinstance(held, str)]


def account(table: Table, goldens: Any, families: Callable[[str], bool]) -> None:
    """The table names every recorded function of these families, and says of each that isn't held why."""
    assert {key for key in goldens.cases if families(key[0])} == table.keys()
    assert all(held.startswith("not offered: ") for held in table.values() if isinstance(held, str))


def every(*conditions: Callable[[Case], bool]) -> Callable[[Case], bool]:
    return lambda case: all(condition(case) for condition in conditions)


def no_empty_row(case: Case) -> bool:
    return bool(case.inside.any(dim=1).all())


def one_later(mask: Tensor) -> Tensor:
    """TRL's PPO: a row has one token more, where there is room; it carries the score and the last value, and isn't trained."""
    return torch.maximum(mask, torch.cat([mask[:, :1], mask[:, :-1]], dim=1))
