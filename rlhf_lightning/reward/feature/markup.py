"""Lists, headings and code."""

from __future__ import annotations

import re

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import share
from rlhf_lightning.reward.regression.family import FeatureFamily

_BULLET = re.compile(r"^\s*[-*•+]\s", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_LINK = re.compile(r"https?://|\]\(")
_CODE = "{}()[];=<>_`$\\|/&^~#"


@register("reward_feature", "markup")
class Markup(FeatureFamily):
    """Markup: bullets, numbered lines, headings, emphasis, links, code fences and code characters.

    Bullets, numbered lines and headings as shares of the lines; the characters as a share of all.
    """

    names = ("bullets", "numbered lines", "headings", "emphasis", "links", "code fences", "code characters")

    def __call__(self, prompt: str, response: str) -> list[float]:
        lines = len(response.splitlines())
        return [
            share(len(_BULLET.findall(response)), lines),
            share(len(_NUMBERED.findall(response)), lines),
            share(len(_HEADING.findall(response)), lines),
            float(_EMPHASIS.search(response) is not None),
            float(_LINK.search(response) is not None),
            float("```" in response),
            share(sum(map(response.count, _CODE)), len(response)),
        ]
