"""A language model as a judge: comparisons in both orders, ratings, a cache and a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from rlhf_lightning.checkpoint.journal import Journal
from rlhf_lightning.config.schema import expand_user
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompt
from rlhf_lightning.judge.endpoint import Endpoint
from rlhf_lightning.judge.local_model import LocalModel
from rlhf_lightning.judge.position import PositionBias
from rlhf_lightning.judge.questions import FIRST, SECOND, Question, pair_question, rating_question
from rlhf_lightning.judge.settings import JudgeSettings, read_rubric

DIGITS = 6
"""Of a cached probability: the last ones depend on the texts that are read together."""
MIN_ANSWERS = 10
"""Answers after which unreadable ones may end the run."""


class Model(Protocol):
    """A language model that answers questions: `Endpoint`, `LocalModel`."""

    name: str
    identity: str

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, dict[str, float] | None]]: ...


class Judge:
    """A language model with a rubric; equal questions are asked once, now and in later commands.

    Args:
        device: of a model that is run here.
        log: prints a line.

    Attributes:
        position: the position bias so far.
        calls: new ones; the other answers are from the cache.
    """

    def __init__(self, settings: JudgeSettings, *, device: torch.device | str = "cpu", log: Callable[[str], None] = print) -> None:
        self.settings, self.rubric = settings, read_rubric(settings.rubric)
        self.model: Model = Endpoint(settings, log) if settings.path is None else LocalModel(settings.path, device)
        self.name = f"judge {self.model.name}"
        self.position = PositionBias()
        self.calls = self.cached = self.unreadable = 0
        self._journal = Journal(Path(expand_user(settings.cache)))

    def compare(self, pairs: Sequence[tuple[Prompt, str, str]]) -> list[tuple[int, int] | None]:
        """The ranks of each pair's two responses, from the answers to both orders.

        They are equal if the orders disagree; a pair without an answer has None. Equal texts are a tie that is not asked.

        Raises:
            ConfigError: the answers are about the position of a response.
            UserError: the budget is spent, or the server doesn't answer.
        """
        distinct = [i for i, (_, first, second) in enumerate(pairs) if first != second]
        orders = [pairs[i] for i in distinct] + [(pairs[i][0], pairs[i][2], pairs[i][1]) for i in distinct]
        answers = self.ask([pair_question(prompt, first, second, self.rubric) for prompt, first, second in orders])
        ranks: list[tuple[int, int] | None] = [(1, 1)] * len(pairs)
        for i, answer, swapped in zip(distinct, answers[: len(distinct)], answers[len(distinct) :], strict=True):
            if answer is None or swapped is None:
                ranks[i] = None
                continue
            letters = likeliest(answer), likeliest(swapped)
            self.position.add(*letters)
            ranks[i] = (1, 2) if letters == (FIRST, SECOND) else (2, 1) if letters == (SECOND, FIRST) else (1, 1)
        self.position.check(self.name, self.settings.max_position_bias)
        return ranks

    def rate(self, texts: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        """The expected rating of each response over the probabilities of the digits; None without an answer."""
        scale = self.settings.rating_scale
        answers = self.ask([rating_question(prompt, response, self.rubric, scale) for prompt, response in texts])
        return [None if answer is None else sum(int(digit) * share for digit, share in answer.items()) for answer in answers]

    def ask(self, questions: Sequence[Question]) -> list[dict[str, float] | None]:
        """The probabilities of each question's choices; None for an answer that is none of them.

        Raises:
            UserError: the budget is spent, or most answers can't be read.
        """
        # Ask what isn't in the cache, within the budget.
        digests = [question.digest(self.model.identity) for question in questions]
        new = {digest: question for digest, question in zip(digests, questions, strict=True) if digest not in self._journal}
        budget = len(new) if self.settings.budget is None else max(0, self.settings.budget - self.calls)
        keys = list(new)[:budget]
        for i, answer in self.model.answer([new[key] for key in keys]) if keys else ():
            self.calls += 1
            self.unreadable += answer is None
            self._journal.add(keys[i], None if answer is None else {choice: round(p, DIGITS) for choice, p in answer.items()})
            if self.unreadable > max(MIN_ANSWERS, self.calls) / 2:
                raise UserError(
                    f"{self.name}: {self.unreadable} of {self.calls} answers are none of {', '.join(new[keys[i]].choices)}: a model that "
                    "thinks first needs a larger judge.max_tokens"
                )
        if len(keys) < len(new):
            raise UserError(
                f"{self.name}: the budget of {self.settings.budget} calls is spent, and {len(new) - len(keys)} questions are left. Answers "
                "are in the cache: the same command continues with as many calls again, or write a larger judge.budget"
            )
        self.cached += len(questions) - len(keys)
        return [self._journal[digest] for digest in digests]

    def describe(self) -> str:
        """Describe the calls so far and the position bias."""
        parts = [f"{self.name}: {self.calls} calls, {self.cached} answers from the cache", self.position.describe()]
        return "; ".join([part for part in parts if part] + ([f"{self.unreadable} unreadable answers"] if self.unreadable else []))


def likeliest(answer: dict[str, float]) -> str:
    """The likeliest choice, the first of equally likely ones."""
    return max(answer, key=lambda choice: answer[choice])
