"""Prompts and demonstrations in rows of texts or conversations, in TRL's shapes."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import conversation_after, messages, prompt_of, responses_of
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.strict_json import strict_json
from rlhf_lightning.feedback.unknown_fields import CONTEXT, STRENGTH, list_names, reject_unread, suggest_name
from rlhf_lightning.flow import FramedPrompt, Message, Prompt, prompt_text
from rlhf_lightning.interfaces import Demonstration, TaskPrompt

MESSAGES, TEXT, COMPARED = "messages", "text", ("chosen", "rejected")
RESPONSES = ("response", "completion")
"""Default names of a demonstration's response: ours and TRL's."""


@dataclass(frozen=True)
class RowShapes:
    """Reads rows of the shapes that `task=files` lists.

    Attributes:
        prompt, response: names of the fields; None takes the first of RESPONSES.
        system: a message before each prompt without one; with it, also empty, a text is a user's message. None changes nothing.
        prefix, suffix: text around prompts that are texts.
    """

    prompt: str
    response: str | None = None
    system: str | None = None
    prefix: str = ""
    suffix: str = ""

    def prompt_row(self, row: Row) -> TaskPrompt | None:
        """The row's prompt with its other columns; None for a row of plain text, which has no prompt."""
        _check_fields(row, {self.prompt}, CONTEXT)
        if row.has(self.prompt):
            prompt, fields = prompt_of(row, self.prompt), {self.prompt}
        elif row.has(MESSAGES):
            turns = _messages(row)
            prompt, fields = turns[: len(turns) - (turns[-1].role == "assistant")], {MESSAGES}
            if not prompt:
                raise DataError(f"{MESSAGES} begins with the assistant: a user's message comes first")
        elif all(map(row.has, COMPARED)):
            prompt, fields = responses_of(row, self.prompt, COMPARED)[0], {*COMPARED}
        elif row.has(TEXT):
            return None
        else:
            raise DataError(self._missing(row, self.prompt, "a prompt, messages, chosen with rejected, or text"))
        columns = {name: value for name, value in row.data.items() if name not in fields}
        return TaskPrompt(self._complete(prompt), columns, row.origin)

    def demonstration(self, row: Row) -> Demonstration:
        """The row's prompt with what is learned: its response, the assistant's turns, or a plain text."""
        names = RESPONSES if self.response is None else (self.response,)
        response = next((name for name in names if row.has(name)), None)
        _check_fields(row, {self.prompt, *names}, CONTEXT | STRENGTH)
        if row.has(self.prompt):
            if response is None:
                raise DataError(self._missing(row, names[0], " or ".join(names)))
            prompt = prompt_of(row, self.prompt)
            value = row.get(response)
            learned = (
                _response_to_learn(conversation_after(prompt, messages(value, response)), response) if isinstance(value, list) else None
            )
            return Demonstration(self._complete(prompt), learned or row.text(response), row.origin)
        if row.has(MESSAGES):
            turns = _messages(row)
            first = next((i for i, message in enumerate(turns) if message.role == "assistant"), len(turns))
            if first == 0:
                raise DataError(f"{MESSAGES} begins with the assistant: a user's message comes first")
            return Demonstration(self._complete(turns[:first]), _response_to_learn(turns[first:], MESSAGES), row.origin)
        if row.has(TEXT):
            return Demonstration("", row.text(TEXT), row.origin)
        raise DataError(self._missing(row, self.prompt, f"a prompt with {' or '.join(names)}, messages, or text"))

    def _complete(self, prompt: Prompt) -> Prompt:
        """The prompt with system message, prefix and suffix."""
        if isinstance(prompt, str):
            if self.system is None or not prompt:
                return FramedPrompt(self.prefix, prompt, self.suffix) if self.prefix or self.suffix else prompt
            prompt = (Message(role="user", content=prompt),)
        elif self.prefix or self.suffix:
            raise DataError("the prompt is a conversation, which the chat template frames: leave out task.prefix and task.suffix")
        if self.system and prompt[0].role != "system":
            return (Message(role="system", content=self.system), *prompt)
        return prompt

    def _missing(self, row: Row, name: str, expected: str) -> str:
        near = suggest_name(name, row.data)
        return f"no field {name!r}{near}; expected is {expected}, and the row has: {list_names(row.data) or 'none'}"


def prompt_key(prompt: Prompt) -> str:
    """The text by which prompts are equal: its Unicode NFC form."""
    return unicodedata.normalize("NFC", prompt.content if isinstance(prompt, FramedPrompt) else prompt_text(prompt))


def question_key(prompt: Prompt) -> str:
    """The key of a prompt without its system message; of a single user's message that of its text."""
    if isinstance(prompt, str):
        return prompt_key(prompt)
    turns = tuple(message for message in prompt if message.role != "system")
    return prompt_key(turns[0].content if len(turns) == 1 else turns)


def _messages(row: Row) -> tuple[Message, ...]:
    """The row's conversation; a CSV file has it as JSON."""
    value = row.get(MESSAGES)
    if isinstance(value, str):
        try:
            value = strict_json(value.encode(), 0)
        except ValueError as fault:
            raise DataError(f"{MESSAGES} must be a list of messages, or that list as JSON: {fault}") from None
    if not isinstance(value, list) or not value:
        raise DataError(f"{MESSAGES} must be a list of messages {{'role', 'content'}} that isn't empty")
    return messages(value, MESSAGES)


def _response_to_learn(turns: tuple[Message, ...], where: str) -> str | tuple[Message, ...]:
    """The turns up to the assistant's last, or its text if there is one."""
    answers = [i for i, message in enumerate(turns) if message.role == "assistant"]
    if not answers:
        raise DataError(f"{where} has no message of the assistant to learn")
    if turns[0].role != "assistant":
        raise DataError(f"{where} begins with a message of the {turns[0].role} after the prompt: the assistant's comes first")
    return turns[0].content if answers[-1] == 0 else turns[: answers[-1] + 1]


def _check_fields(row: Row, read: set[str], fields: Mapping[str, str]) -> None:
    reject_unread(row.data, read, fields, {}, "write it into the prompt, or take it out of the file")
