"""Responses of a given form."""

from __future__ import annotations

import re
from typing import Literal

from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer._pattern import Pattern

THINK = r"<think>(?!.*<think>).*?</think>.*"


@register("rollout_scorer", "format")
class FormatScorer:
    r"""1 for a response of which a regular expression matches, else 0.

    The default is TRL's think_format_reward: reasoning in <think> tags, then the answer. `.` matches line breaks too.

    Args:
        pattern: the regular expression (Python's re).
        match: "full" if the whole response must match it, but for the space around it, "search" if a part may.
    """

    def __init__(self, *, pattern: Pattern = THINK, match: Literal["full", "search"] = "full") -> None:
        self.pattern = re.compile(pattern, re.DOTALL | re.MULTILINE)
        self.match = match

    def __call__(self, rollout: Rollout) -> list[bool]:
        """Scores [B]."""
        if self.match == "search":
            return [self.pattern.search(text) is not None for text in rollout.responses]
        return [self.pattern.fullmatch(text.strip()) is not None for text in rollout.responses]
