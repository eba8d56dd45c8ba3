"""The limit on a text's tokens: a setting, or the model's positions, whichever is smaller."""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = 2**31
"""Positions of a model that counts them relatively."""


@dataclass(frozen=True)
class LengthLimit:
    """The most tokens of a text, and the remedy for a longer one, to end an error message with."""

    tokens: int
    remedy: str


def length_limit(wanted: int, positions: int, setting: str) -> LengthLimit:
    """The smaller limit, and a remedy that names the one that binds.

    Args:
        wanted: value of the setting.
        positions: of the model, `UNLIMITED` for one without a table of them.
    """
    if positions > wanted:
        largest = f" (the model has {positions} positions)" if positions < UNLIMITED else ""
        return LengthLimit(wanted, f"raise {setting}={wanted}{largest}, or give shorter texts")
    return LengthLimit(
        positions,
        f"that is all positions of the model, so that {setting}={wanted} doesn't count: give shorter texts, or a model with more positions",
    )
