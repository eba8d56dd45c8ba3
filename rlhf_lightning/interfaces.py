"""The task protocol."""

from __future__ import annotations

import random
from typing import Protocol, runtime_checkable


class Task(Protocol):
    """Prompts, demonstrations and, optionally, a hidden utility of simulated people.

    Deterministic: two tasks with the same settings return the same lists in the same order.
    """

    @property
    def has_utility(self) -> bool:
        """True if `utility` and `improve` are available; otherwise both raise ConfigError."""

    def train_prompts(self) -> list[str]:
        """Return the distinct training prompts."""

    def test_prompts(self) -> list[str]:
        """Return the distinct held-out prompts; none is in `train_prompts` or `demonstrations`."""

    def demonstrations(self) -> list[tuple[str, str]]:
        """Return (prompt, response) pairs for supervised fine-tuning, possibly none."""

    def utility(self, prompt: str, response: str) -> float:
        """Score the response in the task's units. The policy and the reward model never see it."""

    def improve(self, prompt: str, response: str, rng: random.Random) -> str:
        """Apply one edit that a person would make; return the same text if there is none."""


@runtime_checkable
class ExplainedTask(Protocol):
    """A task with a decomposed utility; reports check `isinstance(task, ExplainedTask)`."""

    def explain(self, prompt: str, response: str) -> dict[str, float]:
        """Return the terms of the utility; every term is present, 0 if it doesn't apply."""
