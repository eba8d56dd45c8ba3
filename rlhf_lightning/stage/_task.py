"""The task of a command: its conversations checked, without prompts that no model can answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rlhf_lightning.errors import DataError, OverlongPrompt
from rlhf_lightning.interfaces import Demonstration, Task, TaskPrompt
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_lightning.flow import Message, Prompt, Prompts
    from rlhf_lightning.interfaces import Task, TaskPrompt
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.prompts import PromptEncoder
    from rlhf_lightning.rollout.scoring import Scorer

Chat = tuple["Message", ...]
MAX_TESTED = 200
"""Conversations whose turns are compared: prefix stability is mostly the template's, not the conversation's."""
REMEDIES = {
    "system": "leave out task.system and system messages",
    "tool": "leave out conversations with tools",
}
OTHER_REMEDY = "let user and assistant take turns, or leave such conversations out"


def build_task(run: Run, notes: list[str] | None = None) -> Task:
    """Build the task and check its conversations against the backbone's chat template.

    A template under which an answer's tokens change once messages follow it is logged: such answers are learned one by one.

    Args:
        notes: receives that note for the report.

    Raises:
        DataError: the template rejects a conversation, with its file, line and role.
    """
    from rlhf_lightning.sft.rows import conversation_of

    task: Task = run.build("task")
    rows: list[TaskPrompt | Demonstration] = [*task.train_prompts(), *task.test_prompts(), *task.demonstrations()]
    chats = [(row.origin, chat) for row in rows if (chat := conversation_of(row))]
    paths = backbone_tokenizer(run)
    if chats and paths:
        from rlhf_lightning.model.loading import load_tokenizer

        note = check_chats(load_tokenizer(paths[0], "backbone.path"), chats)
        if note:
            run.log(note)
            if notes is not None:
                notes.append(note)
    return task


def check_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[tuple[str, Chat]]) -> str:
    """Check that the chat template renders each (origin, chat).

    Returns:
        a note on the first that isn't prefix-stable; empty if all renderings begin with those of their earlier turns.

    Raises:
        DataError: a chat is rejected, with its origin, the message's role and a remedy.
    """
    from rlhf_lightning.tokenization.chat_template import render_chat
    from rlhf_lightning.tokenization.conversation import UnstableTemplate, conversation_ids
    from rlhf_lightning.tokenization.turns import stop_ids

    note, tested = "", 0
    for origin, chat in chats:
        is_answered = chat[-1].role == "assistant"
        try:
            render_chat(tokenizer, chat, generation=not is_answered)
        except DataError as error:
            number = _rejected_message(chat, lambda part: render_chat(tokenizer, part, generation=part[-1].role != "assistant"))
            role = chat[number - 1].role
            raise DataError(f"{origin}: message {number}, of the role {role}: {error}; {REMEDIES.get(role, OTHER_REMEDY)}") from None
        has_several = sum(message.role == "assistant" for message in chat) > 1
        if is_answered and has_several and not note and tested < MAX_TESTED:
            tested += 1
            try:
                conversation_ids(tokenizer, chat, stop_ids(tokenizer, None))
            except UnstableTemplate as reason:
                note = (
                    f"{origin}: {reason}: it is not prefix-stable. Each answer of such a conversation is learned as a row of its own, "
                    "after what a sampler would read; a chat template that leaves earlier turns unchanged makes one row of it"
                )
    return note


def _rejected_message(chat: Chat, render: Callable[[Chat], object]) -> int:
    """The number of the first message from which on all beginnings of a chat are rejected."""
    number = len(chat)
    while number > 1:
        try:
            render(chat[: number - 1])
            return number
        except DataError:
            number -= 1
    return number


def utility_of(task: Task) -> Callable[[Prompt, str], float] | None:
    """The task's utility as a function of prompt and response; None without one."""
    return (lambda prompt, response: task.utility(prompt, response)) if task.has_utility else None


class FittingTask:
    """A task with other training and held-out prompts, and possibly other demonstrations."""

    def __init__(
        self, task: Task, train: list[TaskPrompt], test: list[TaskPrompt], demonstrations: list[Demonstration] | None = None
    ) -> None:
        self._task, self._train, self._test, self._demonstrations = task, train, test, demonstrations

    def train_prompts(self) -> list[TaskPrompt]:
        return list(self._train)

    def test_prompts(self) -> list[TaskPrompt]:
        return list(self._test)

    def demonstrations(self) -> list[Demonstration]:
        return self._task.demonstrations() if self._demonstrations is None else list(self._demonstrations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


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
    from rlhf_lightning.reward.storage.classifier import linear_score

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
    return cast(Any, FittingTask(task, fitting[0], fitting[1]))  # type: ignore[no-any-return]
