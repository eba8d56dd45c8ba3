"""Orders of responses, best first: "B > A = C", [2, 1, 3], or a list of texts."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import describe_value

_STEP = re.compile(r"\s*(?:>|,|;|\||\n|\s)\s*")
_TIE = re.compile(r"\s*[=~]\s*")


def names_of_response(index: int, *names: str) -> frozenset[str]:
    """Names of a response in an order, in lower case: its own, its number from 1, its letter."""
    return frozenset(name.casefold() for name in (*names, str(index + 1), chr(ord("a") + index)))


def ranks_of_order(order: Any, names: Sequence[Collection[str]], field: str) -> list[int | None]:
    """Ranks from 0 of the responses in an order, None for those that it leaves out.

    Args:
        order: text like "B > A = C" or "2,1,3"; or a list of names or numbers, an inner list being a tie. Numbers count from 1, or
            from 0 where a 0 is among them.
        names: of each response, in lower case (`names_of_response`).

    Raises:
        DataError: a name of no response, or of one named before.
    """
    groups = _groups(order, field)
    from_zero = any(name == "0" for group in groups for name in group)
    ranks: list[int | None] = [None] * len(names)
    for rank, group in enumerate(groups):
        for name in group:
            called = str(int(name) + 1) if from_zero and name.isdigit() else name
            index = next((i for i, accepted in enumerate(names) if called in accepted), None)
            if index is None:
                raise DataError(f"{field} names {name!r}, which is none of the {len(names)} responses")
            if ranks[index] is not None:
                raise DataError(f"{field} names {name!r} twice")
            ranks[index] = rank
    return ranks


def ranks_of_choice(choice: Any, names: Sequence[Collection[str]], field: str) -> list[int | None]:
    """Rank 0 of the response that was chosen, 1 of all others.

    Args:
        choice: its number from 0, or its name or letter.

    Raises:
        DataError: no response has this number or name.
    """
    if isinstance(choice, int) and not isinstance(choice, bool):
        index = choice if 0 <= choice < len(names) else None
    else:
        index = next((i for i, accepted in enumerate(names) if str(choice).strip().casefold() in accepted), None)
    if index is None:
        raise DataError(f"{field} is {describe_value(choice)}, which is none of the {len(names)} responses (numbers count from 0)")
    return [int(i != index) for i in range(len(names))]


def _groups(order: Any, field: str) -> list[list[str]]:
    """The tied names at each place, in lower case."""
    if isinstance(order, str):
        tight = _TIE.sub("=", order.strip())
        return [[name.casefold() for name in step.split("=") if name] for step in _STEP.split(tight) if step]
    if not isinstance(order, list) or not order:
        raise DataError(f"{field} must be an order of responses, best first, not {describe_value(order)}")
    return [[str(name).strip().casefold() for name in (step if isinstance(step, list) else [step])] for step in order]
