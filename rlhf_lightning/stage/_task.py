"""The task of a command, with its conversations checked before any model loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.errors import DataError
from rlhf_lightning.interfaces import Demonstration, Task, TaskPrompt
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_lightning.flow import Message, Prompt

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
