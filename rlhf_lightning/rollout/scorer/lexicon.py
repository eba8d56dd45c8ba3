"""A rule reward: how positive a response is by a word list."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.config.schema import FilePath
from rlhf_lightning.feedback.words import read_lexicon
from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@register("rollout_scorer", "lexicon")
class LexiconScorer:
    """The summed valence of a response's words by a user's lexicon file, squashed to (-1, 1).

    Args:
        path: a text file, one `word<tab>valence` a line (the layout of VADER's lexicon); further columns are ignored.
        normalise: "compound": s / sqrt(s² + alpha) of the sum s (Hutto and Gilbert 2014); "mean": the mean valence of the words, which
            length can't buy.
        alpha: constant of "compound"; sums well above its root score near 1.
    """

    def __init__(self, *, path: FilePath, normalise: Literal["compound", "mean"] = "compound", alpha: PositiveFloat = 15.0) -> None:
        self.valence = read_lexicon(Path(path), "rollout_scorer.lexicon.path")
        self.normalise, self.alpha = normalise, alpha

    def __call__(self, rollout: Rollout) -> Tensor:
        return torch.tensor([self.score(text) for text in rollout.responses])

    def score(self, text: str) -> float:
        words = WORD.findall(text.lower())
        total = sum(self.valence.get(word, 0.0) for word in words)
        if self.normalise == "mean":
            return total / max(1, len(words))
        return total / math.sqrt(total * total + self.alpha)
