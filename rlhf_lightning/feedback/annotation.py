"""Whoever judges the policy's samples, as the stages see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from rlhf_lightning.flow import Feedback

Kind = Literal["rating", "ranking", "edit"]
KINDS: tuple[Kind, ...] = ("rating", "ranking", "edit")


class Annotator(Protocol):
    """One or many people, or what stands for them."""

    def judge(self, groups: Sequence[tuple[str, Sequence[str]]], kinds: Sequence[Kind] = KINDS) -> list[Feedback]:
        """What they say about each prompt's responses, in the kinds of judgement asked for.

        Args:
            groups: (prompt, its responses); prompts need not be distinct.
            kinds: the kinds wanted; a kind that a group can't have (a ranking of one response) is left out for it.
        """
