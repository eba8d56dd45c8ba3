"""What a response takes from its prompt."""

from __future__ import annotations

from pydantic import PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import numbers, share, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "overlap")
class Overlap(FeatureFamily):
    """Overlap with the prompt: shared words, copied runs of words, and numbers taken over or new.

    Shares of the response's different words found in the prompt and of the prompt's found in the response, the same for runs of
    `run` words (copied text), and for numbers. Where there is no prompt all are 0.

    Args:
        run: how many words in a row count as copied.
    """

    names = (
        "words from the prompt",
        "the prompt's words taken up",
        "copied runs",
        "numbers from the prompt",
        "the prompt's numbers taken up",
    )

    def __init__(self, *, run: PositiveInt = 4) -> None:
        self.run = run

    def __call__(self, prompt: str, response: str) -> list[float]:
        asked, said = set(words(prompt)), set(words(response))
        given, used = set(numbers(prompt)), set(numbers(response))
        copied, runs = self._runs(prompt), self._runs(response)
        return [
            share(len(asked & said), len(said)),
            share(len(asked & said), len(asked)),
            share(len(copied & runs), len(runs)),
            share(len(given & used), len(used)),
            share(len(given & used), len(given)),
        ]

    def _runs(self, text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {found[i : i + self.run] for i in range(len(found) - self.run + 1)}
