"""The annotator protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from rlhf_lightning.flow import Feedback

AnnotationKind = Literal["rating", "ranking", "edit"]
ANNOTATION_KINDS: tuple[AnnotationKind, ...] = ("rating", "ranking", "edit")


class Annotator(Protocol):
    """Judges the policy's samples: one or several people, or a simulation."""

    def judge(self, groups: Sequence[tuple[str, Sequence[str]]], kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS) -> list[Feedback]:
        """Judge each prompt's responses, in these kinds of judgement.

        Args:
            groups: (prompt, its responses); prompts need not be distinct.
            kinds: of judgement; a kind that doesn't apply to a group (a ranking of one response) is left out.
        """
