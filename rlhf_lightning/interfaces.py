"""The protocols of tasks, annotators and selections, and their records."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor

from rlhf_lightning.flow import Feedback, Message, Prompt, prompt_text

AnnotationKind = Literal["rating", "ranking", "edit"]
ANNOTATION_KINDS: tuple[AnnotationKind, ...] = ("rating", "ranking", "edit")


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


@dataclass(frozen=True, kw_only=True)
class SelectionPool:
    """The questions that could be asked, and what the present reward model makes of their responses.

    Shapes: N responses of all groups, in order; D features; M members; C comparisons. Scores are log-odds, tensors are float64 on the
    CPU, and None without a reward model, as in a first round.

    Attributes:
        groups: prompts with their responses.
        scores: [N] by the model.
        features: [N, D] phi(x, y), of which the scores are a linear function or nearly so.
        members: [M, N] by an ensemble's members, or by samples of the posterior of a linear model's weights.
        past_differences: [C, D] phi(a) - phi(b) of the comparisons that were answered. past_scores: [C] differences of their scores.
        precision: of the Gaussian prior of the weights on the features.
        error_rate: share of comparisons that people answer at random, whatever their difference.
        seconds: expected seconds of a person for a prompt and the responses to compare; None counts all alike.
        excluded: (group, response, response) of pairs that must not be chosen; indices are those of `Choice`, rising.
    """

    groups: Sequence[tuple[Prompt, Sequence[str]]]
    scores: Tensor | None = None
    features: Tensor | None = None
    members: Tensor | None = None
    past_differences: Tensor | None = None
    past_scores: Tensor | None = None
    precision: float = 1.0
    error_rate: float = 0.0
    seconds: Callable[[Prompt, Sequence[str]], float] | None = None
    excluded: frozenset[tuple[int, int, int]] = frozenset()


@dataclass(frozen=True)
class Choice:
    """A question for people: some of the responses to one prompt.

    Attributes:
        group: index in `SelectionPool.groups`. responses: indices in the group, rising.
        score: expected information, in the method's unit; 0 for a random choice.
        selected_by: the option that chose it, for `Feedback.selected_by`; feedback.acquisition.choose_questions sets it.
    """

    group: int
    responses: tuple[int, ...]
    score: float = 0.0
    selected_by: str = "random"


class FeedbackSelection(Protocol):
    """A method that chooses questions: an option of feedback_selection with its settings bound."""

    def __call__(self, pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
        """Choose up to `budget` questions, best first; fewer if the pool has fewer.

        All random numbers come from `generator`, so that equal seeds choose alike on every process.

        Raises:
            ConfigError: the pool lacks what the method needs.
        """


class Collection(Protocol):
    """The page and the database of stage=collect, on which people judge batches of items."""

    def serve(self) -> None:
        """Serve the page until the process ends, and print the links."""

    def split(self, groups: Sequence[tuple[Prompt, Sequence[str]]], pairs: int, seed: str) -> list[tuple[Prompt, tuple[str, ...]]]:
        """Return the items to judge: up to `pairs` pairs of each group if pairs are asked, else the groups."""

    def publish(self, key: str, items: Sequence[tuple[Prompt, tuple[str, ...]]]) -> None:
        """Publish a batch, unless it was published before."""

    def state(self, key: str) -> Any:
        """Return the progress: answers, slots, opened, is_finished, is_closed."""

    def is_exhausted(self) -> bool:
        """Return whether nobody has anything left to judge."""

    def close(self, key: str) -> list[Feedback]:
        """Fix the batch's answers and return their records, the same ones every time."""


@dataclass(frozen=True)
class AnnotatorContext:
    """The first argument of every annotator: what it may use of the run.

    Attributes:
        folder: of the run, for what an annotator must not ask twice.
        log: prints a line.
        settings: a section of the configuration by name, as its dataclass.
        device: for an annotator's model.
        open_collection: opens the database of the section `collect`.
        load_scorer: from the folder of a reward model to a function of texts and their scores.
    """

    task: Task
    folder: Path
    log: Callable[[str], None] = print
    settings: Callable[[str], Any] = field(default=lambda name: None, repr=False)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    open_collection: Callable[[], Collection] | None = None
    load_scorer: Callable[[str], Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]] | None = None


class Annotator(Protocol):
    """Judges the policy's samples: one or several people, a model, a program, or a simulation."""

    @property
    def kinds(self) -> tuple[AnnotationKind, ...]:
        """Kinds of judgement that it can give; a class attribute, which is read before one is built."""
        ...

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Judge each prompt's responses, in these kinds of judgement.

        The same arguments again, after a crash too, continue where it ended and give the same result. A blind comparison of two
        policies is `judge(groups of two responses, kinds=("ranking",))`.

        Args:
            groups: (prompt, its responses); prompts need not be distinct.
            number: the round's, from 1; 0 before the first.
            kinds: of judgement. By default an annotator gives those of its settings. A kind that it can't give, or that doesn't apply to
                a group (a ranking of one response), is left out.
        """
