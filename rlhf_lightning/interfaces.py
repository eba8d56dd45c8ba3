"""The task protocol and its records."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from rlhf_lightning.flow import Message, Prompt, prompt_text


@dataclass(frozen=True)
class TaskPrompt:
    """A prompt of a task: a text or a conversation before the answer.

    Attributes:
        columns: the other columns of its row, for scorers.
        origin: "file:line", for messages.
    """

    prompt: Prompt
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class Demonstration:
    """A prompt with the response to imitate.

    Attributes:
        response: a text, or the messages that follow the prompt, of which the assistant's are learned.
        origin: "file:line", for messages.
    """

    prompt: Prompt
    response: str | tuple[Message, ...]
    origin: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """Prompt and response as plain text."""
        if isinstance(self.response, str):
            return prompt_text(self.prompt) + self.response
        return prompt_text(self.prompt) + "\n".join(message.content for message in self.response)


class Task(Protocol):
    """Prompts, demonstrations and, optionally, a hidden utility of simulated people.

    Deterministic: two tasks with the same settings return the same lists in the same order.
    """

    @property
    def has_utility(self) -> bool:
        """True if `utility` and `improve` are available; otherwise both raise ConfigError."""

    def train_prompts(self) -> list[TaskPrompt]:
        """Return the distinct training prompts."""

    def test_prompts(self) -> list[TaskPrompt]:
        """Return the distinct held-out prompts; none is in `train_prompts` or `demonstrations`."""

    def demonstrations(self) -> list[Demonstration]:
        """Return prompts with responses for supervised fine-tuning, possibly none."""

    def utility(self, prompt: Prompt, response: str) -> float:
        """Score the response in the task's units. The policy and the reward model never see it."""

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        """Apply one edit that a person would make; return the same text if there is none."""


@runtime_checkable
class ExplainedTask(Protocol):
    """A task with a decomposed utility; reports check `isinstance(task, ExplainedTask)`."""

    def explain(self, prompt: Prompt, response: str) -> dict[str, float]:
        """Return the terms of the utility; every term is present, 0 if it doesn't apply."""
