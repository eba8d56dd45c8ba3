"""The overlap of a response with its prompt."""

from __future__ import annotations

from pydantic import PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import numbers, share, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "overlap")
class Overlap(FeatureFamily):
    """Overlap with the prompt: shared words, copied runs of words, and numbers taken over or new.

    Shares of the response's distinct words that are in the prompt and the reverse, the same for runs of `run` words (copied text), and
    for numbers. Without a prompt all are 0.

    Args:
        run: number of consecutive words that count as copied.
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
        prompt_words, response_words = set(words(prompt)), set(words(response))
        prompt_numbers, response_numbers = set(numbers(prompt)), set(numbers(response))
        prompt_runs, response_runs = self._runs(prompt), self._runs(response)
        shared_words, shared_numbers = len(prompt_words & response_words), len(prompt_numbers & response_numbers)
        return [
            share(shared_words, len(response_words)),
            share(shared_words, len(prompt_words)),
            share(len(prompt_runs & response_runs), len(response_runs)),
            share(shared_numbers, len(response_numbers)),
            share(shared_numbers, len(prompt_numbers)),
        ]

    def _runs(self, text: str) -> set[tuple[str, ...]]:
        tokens = words(text)
        return {tokens[i : i + self.run] for i in range(len(tokens) - self.run + 1)}
