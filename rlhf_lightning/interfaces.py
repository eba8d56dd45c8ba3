"""What the policy is asked to do, as the stages see it."""

from __future__ import annotations

import random
from typing import Protocol, runtime_checkable


class Task(Protocol):
    """Prompts, demonstrations and, where one is known, the hidden utility that people are supposed to feel.

    Everything is deterministic: two tasks made with the same settings give the same lists in the same order.
    """

    @property
    def has_utility(self) -> bool:
        """Whether `utility` and `improve` are known; where they aren't, both raise ConfigError."""

    def train_prompts(self) -> list[str]:
        """The distinct prompts to learn on."""

    def test_prompts(self) -> list[str]:
        """The distinct prompts held out for evaluation; none of them is in `train_prompts` or in `demonstrations`."""

    def demonstrations(self) -> list[tuple[str, str]]:
        """(prompt, response) pairs for supervised fine-tuning; empty where there are none."""

    def utility(self, prompt: str, response: str) -> float:
        """How good the response is, in the task's own units. The policy and the reward model never see it."""

    def improve(self, prompt: str, response: str, rng: random.Random) -> str:
        """The response after one edit that a person would make; the same text where nothing is worth changing."""


@runtime_checkable
class Explained(Protocol):
    """A task whose utility can say what it is made of; a report asks `isinstance(task, Explained)`."""

    def explain(self, prompt: str, response: str) -> dict[str, float]:
        """The terms of the utility, which sum to it; every term is present, 0 where it doesn't apply."""
