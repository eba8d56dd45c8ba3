"""A task without prompts that are too long for the models, so that none stops a run later."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf_lightning.errors import DataError, OverlongPrompt
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.flow import Prompt, Prompts
    from rlhf_lightning.interfaces import Demonstration, Task, TaskPrompt
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.prompts import PromptEncoder
    from rlhf_lightning.rollout.scoring import Scorer


class FittingTask:
    """A task with other training and held-out prompts, and possibly other demonstrations."""

    def __init__(
        self, task: Task, train: list[TaskPrompt], test: list[TaskPrompt], demonstrations: list[Demonstration] | None = None
    ) -> None:
        self._task, self._train, self._test, self._demonstrations = task, train, test, demonstrations

    @property
    def has_utility(self) -> bool:
        return self._task.has_utility

    def train_prompts(self) -> list[TaskPrompt]:
        return list(self._train)

    def test_prompts(self) -> list[TaskPrompt]:
        return list(self._test)

    def demonstrations(self) -> list[Demonstration]:
        return self._task.demonstrations() if self._demonstrations is None else list(self._demonstrations)

    def utility(self, prompt: Prompt, response: str) -> float:
        return self._task.utility(prompt, response)

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        return self._task.improve(prompt, response, rng)


@dataclass(frozen=True)
class CriticPrompts:
    """The policy's prompt encoder within the positions of a critic."""

    policy: LanguageModel
    positions: int

    def encode_prompts(self, prompts: Sequence[Prompt], max_new_tokens: int) -> Prompts:
        """The policy's encoding. Raises OverlongPrompt for a prompt that doesn't fit the critic."""
        encoded = self.policy.encode_prompts(prompts, max_new_tokens)
        longest = int(encoded.prompt_mask.sum(1).max()) if len(prompts) else 0
        if longest + max_new_tokens > self.positions:
            raise OverlongPrompt(
                f"a prompt of {longest} tokens and a response of up to {max_new_tokens} don't fit the {self.positions} positions of the "
                "reward model, the critic of policy_critic=reward_model; shorten it, or choose policy_critic=separate"
            )
        return encoded


def critic_prompts(run: Run, policy: LanguageModel, scorer: Scorer) -> list[PromptEncoder]:
    """The prompt encoder of a critic with a different number of positions; empty without one."""
    from rlhf_lightning.model.trunk import max_positions
    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.storage.score_layer import linear_score

    model = getattr(scorer, "model", None)
    if "values" not in run.component_of("advantage").needs or "reward_model" not in run.component_of("policy_critic").needs:
        return []
    linear = linear_score(model) if isinstance(model, RewardModel) else None
    positions = None if linear is None else max_positions(linear[0])
    return [] if positions is None else [CriticPrompts(policy, positions)]


def fitting_task(run: Run, task: Task, *encoders: PromptEncoder, notes: list[str]) -> FittingTask:
    """Drop and count the prompts that don't fit one of the models together with a response.

    Args:
        notes: receives a line for the report for dropped prompts, also logged.

    Raises:
        DataError: no training prompt or no held-out prompt fits; the message names the limit.
    """
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.prompts import fitting_prompts
    from rlhf_lightning.tokenization.chat_template import ensure_chat_template

    if not (task.train_prompts() or task.test_prompts()):
        raise DataError("the task has no prompts to answer: rows of text have none, and rows with a prompt or messages do")
    for encoder in encoders:
        if isinstance(encoder, LanguageModel):
            ensure_chat_template(encoder.tokenizer, (row.prompt for row in (*task.train_prompts(), *task.test_prompts())))
    fitting = []
    for what, prompts in (("training prompts", task.train_prompts()), ("held-out prompts", task.test_prompts())):
        checked = fitting_prompts(prompts, encoders, run.max_response_tokens, what)
        fitting.append(checked.prompts)
        if checked.overlong:
            notes.append(f"{checked.overlong} of {len(prompts)} {what} are too long and left out, the first of them: {checked.reason}")
            run.log(notes[-1])
    return FittingTask(task, fitting[0], fitting[1])
