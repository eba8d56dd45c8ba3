"""Several annotators that divide the prompts of a round by their shares."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping, Sequence

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Feedback, Prompt, prompt_text
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, Annotator


class AnnotatorShares:
    """Annotators of whom each judges a share of the prompts, drawn by seed, round and prompt.

    Args:
        annotators: by name. shares: of each, with sum 1 (`divide_shares`).
    """

    def __init__(self, annotators: Mapping[str, Annotator], shares: Mapping[str, float], seed: int) -> None:
        self.annotators, self._seed = annotators, seed
        self._limits = list(itertools.accumulate(shares[name] for name in annotators))[:-1]
        self.kinds = tuple(kind for kind in ANNOTATION_KINDS if any(kind in annotator.kinds for annotator in annotators.values()))

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Let each annotator judge its groups; returns the feedback of the first annotator first.

        Of kinds that not all annotators can give, those who can't are asked nothing, and the others judge all prompts.
        """
        names = [name for name, annotator in self.annotators.items() if set(kinds) & set(annotator.kinds)]
        dealt: dict[str, list[tuple[Prompt, Sequence[str]]]] = {name: [] for name in names}
        for group in groups:
            dealt[self._name(group[0], number, names)].append(group)
        return [
            feedback for name in names if dealt[name] for feedback in self.annotators[name].judge(dealt[name], number=number, kinds=kinds)
        ]

    def _name(self, prompt: Prompt, number: int, names: Sequence[str]) -> str:
        """The annotator of a prompt: by share, and by chance among the others if that one can't."""
        rng = random.Random(f"{self._seed}: annotator {number} {prompt_text(prompt)}")
        name = list(self.annotators)[bisect.bisect_right(self._limits, rng.random())]
        return name if name in names else rng.choice(names)


def divide_shares(shares: Mapping[str, float | None]) -> dict[str, float]:
    """The shares of annotators by name; those without one divide the rest equally.

    Raises:
        ConfigError: the shares are more than 1, or nothing is left for the others.
    """
    total = sum(share for share in shares.values() if share is not None)
    open_names = [name for name, share in shares.items() if share is None]
    written = ", ".join(f"feedback_annotator.{name}.share={share:g}" for name, share in shares.items() if share is not None)
    if total > 1 + 1e-9 or (open_names and total > 1 - 1e-9):
        others = f", and nothing is left for {', '.join(open_names)}" if open_names else ""
        raise ConfigError(f"{written}: the shares are {total:g} in all{others}: write smaller ones")
    if not open_names and total < 1 - 1e-9:
        raise ConfigError(f"{written}: the shares are {total:g} in all and must be 1: leave one of them out to give it the rest")
    return {name: (1 - total) / len(open_names) if share is None else share for name, share in shares.items()}
