"""Marks, capitals and blanks."""

from __future__ import annotations

import re

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import share
from rlhf_lightning.reward.regression.family import FeatureFamily

MARKS = {
    "commas": ",،，、",
    "full stops": ".。।",
    "question marks": "?？؟",
    "exclamation marks": "!！",
    "colons and semicolons": ":;：；",
    "quotation marks": "\"'“”‘’«»„「」",
    "brackets": "()[]{}（）",
    "dashes": "-–—",
}
_BLANK_BEFORE = re.compile(r"\s[,.;:!?%)\]]")
_BLANKS = re.compile(r"[ \t]{2,}")
_ENDS = re.compile(r"[.!?。！？।؟…][\"'”’»)\]]*\s*$")


@register("reward_feature", "punctuation")
class Punctuation(FeatureFamily):
    """Punctuation: marks by kind, capitals, misplaced blanks, and sentence-like start and end.

    Marks, capitals and blanks as shares of the characters.
    """

    names = (
        *MARKS,
        "capitals",
        "blank before a mark",
        "blanks in a row",
        "begins with a capital",
        "ends like a sentence",
        "trailing blank",
    )

    def __call__(self, prompt: str, response: str) -> list[float]:
        size = len(response)
        marks = [share(sum(map(response.count, kind)), size) for kind in MARKS.values()]
        return [
            *marks,
            share(sum(map(str.isupper, response)), size),
            share(len(_BLANK_BEFORE.findall(response)), size),
            share(len(_BLANKS.findall(response)), size),
            float(response.lstrip()[:1].isupper()),
            float(_ENDS.search(response) is not None),
            float(response != response.rstrip()),
        ]
