"""The limit on a text's tokens: the smaller of a setting and the model's positions."""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = 2**31
"""Positions of a model with relative positions."""


@dataclass(frozen=True)
class LengthLimit:
    """Maximum tokens of a text, and the remedy for a longer one, as the end of an error message."""

    tokens: int
    remedy: str


def length_limit(wanted: int, positions: int, setting: str) -> LengthLimit:
    """The smaller limit, with a remedy that names it.

    Args:
        wanted: value of the setting.
        positions: of the model, `UNLIMITED` if they are relative.
    """
    if positions > wanted:
        largest = f" (the model has {positions} positions)" if positions < UNLIMITED else ""
        return LengthLimit(wanted, f"raise {setting}={wanted}{largest}, or give shorter texts")
    return LengthLimit(
        positions,
        f"that is all positions of the model, so that {setting}={wanted} doesn't count: give shorter texts, or a model with more positions",
    )
