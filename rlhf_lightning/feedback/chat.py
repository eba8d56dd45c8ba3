"""Prompts and responses as text or as chat messages (TRL's "conversational" rows), for every format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, describe_value, nonblank_text
from rlhf_lightning.feedback.unknown_fields import common_prefix_length, list_names
from rlhf_lightning.flow import Message, Prompt

ROLES = get_args(Message.model_fields["role"].annotation)
SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "tool": "tool"}
"""Roles of messages written as {"from", "value"}."""
TURN = "\n\nAssistant:"
HUMAN = "\n\nHuman:"
"""Turn headers of HH-RLHF dialogues; an "Assistant:" inside a response starts no turn."""


def prompt_of(row: Row, name: str | None) -> Prompt:
    """Read the row's prompt: a text, or messages {"role", "content"} not ending with the assistant's.

    Without a name the prompt is the empty text: the responses were judged by themselves. Raises DataError for anything else.
    """
    if name is None:
        return ""
    value = row.get(name)
    if not isinstance(value, list):
        return row.text(name)
    where = row.where + name
    if not value:
        raise DataError(f"{where} is an empty list")
    return chat_before_answer(messages(value, where), where)


def response_of(row: Row, name: str, prompt: Prompt) -> str:
    """Read the row's response: a text, or one message of the assistant.

    Messages may repeat the prompt before it, as in UltraFeedback's binarized rows. Longer answers are rejected: a response is one
    turn.
    """
    value = row.get(name)
    if not isinstance(value, list):
        return row.text(name)
    where = row.where + name
    return _answer(conversation_after(prompt, messages(value, where)), where)


def responses_of(row: Row, prompt: str | None, names: Sequence[str]) -> tuple[Prompt, tuple[str, ...]]:
    """Read the row's prompt and its responses; an absent prompt is the part that the responses share.

    Lists of messages share all but their last message. Texts share a dialogue up to a last "\\n\\nAssistant:", as in Anthropic's
    HH-RLHF; the rest, stripped, are the responses. A null prompt is missing, not shared.
    """
    if prompt is None or row.has(prompt):
        question = prompt_of(row, prompt)
        return question, tuple(response_of(row, name, question) for name in names)
    values = [row.get(name) for name in names]
    if not any(isinstance(value, list) for value in values):
        return _split(row, prompt, names)
    chats = [messages(row.items(name), row.where + name) for name in names]
    shared = chats[0][:-1]
    if not shared or any(turns[:-1] != shared for turns in chats):
        raise DataError(f"field '{row.where}{prompt}' is missing, and {' and '.join(names)} don't share all messages but the last")
    question = chat_before_answer(shared, f"{row.where}{names[0]} before its last message")
    return question, tuple(_answer(turns[-1:], row.where + name) for turns, name in zip(chats, names, strict=True))


def judged_turn(row: Row, name: str) -> tuple[Prompt, str]:
    """Read a chat that was judged as a unit: the messages before the assistant's last one, and that one.

    What follows it (the user's thanks) is left out. Raises DataError for a chat without a message of the assistant.
    """
    turns = messages(row.items(name), row.where + name)
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        raise DataError(f"{row.where}{name} has no message of the assistant, which the judgement is on")
    return chat_before_answer(turns[:last], f"{row.where}{name} before its last answer") or "", turns[last].content


def messages(items: Sequence[Any], where: str, extra_keys: Collection[str] = ()) -> tuple[Message, ...]:
    """Parse a list of {"role", "content"} objects, or of ShareGPT's {"from", "value"}, as messages.

    Args:
        where: the list's name, for error messages.
        extra_keys: other keys that a message may have; a null key counts as absent.

    Raises:
        DataError: another role, content that isn't text or is blank, or another key.
    """
    return tuple(_message(item, f"{where}[{i}]", extra_keys) for i, item in enumerate(items))


def chat_before_answer(turns: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """Return the messages before an answer. Raises DataError if they end with the assistant's."""
    if turns and turns[-1].role == "assistant":
        raise DataError(f"{where} ends with the assistant, but the response is the assistant's next message; a user or tool comes between")
    return turns


def _message(item: Any, where: str, extra_keys: Collection[str]) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"{where} must be a message {{'role', 'content'}}, not {describe_value(item)}")
    if "role" not in item and item.get("from") in SHAREGPT_ROLES and "value" in item:
        item = {"role": SHAREGPT_ROLES[item["from"]], "content": item["value"]} | {
            key: value for key, value in item.items() if key not in ("from", "value")
        }
    for name in ("role", "content"):
        if name not in item:
            raise DataError(f"field '{where}.{name}' is missing")
    if item["role"] not in ROLES:
        raise DataError(f"{where}.role must be one of {', '.join(ROLES)}, not {describe_value(item['role'])}")
    extra = [key for key, value in item.items() if key not in ("role", "content", *extra_keys) and value is not None]
    if extra:
        raise DataError(f"{where} holds {list_names(extra)}, which a message of text doesn't have; take it out, or set it to null")
    if isinstance(item["content"], list):
        kinds = sorted({str(part.get("type")) for part in item["content"] if isinstance(part, dict)})
        of_kinds = f" of type {list_names(kinds)}" if kinds else ""
        raise DataError(f"{where}.content must be text, not a list of parts{of_kinds}: models here read only text")
    return Message(role=item["role"], content=nonblank_text(item["content"], f"{where}.content"))


def conversation_after(prompt: Prompt, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns without the prompt, if they repeat it at their beginning."""
    question = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    return turns[len(question) :] if turns[: len(question)] == question else turns


def _answer(turns: tuple[Message, ...], where: str) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        roles = ", ".join(message.role for message in turns) or "none"
        raise DataError(
            f"{where} must hold one message of the assistant after the prompt, not {len(turns)} ({roles}); judge turns one by one"
        )
    return turns[0].content


def _split(row: Row, prompt: str, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    texts = [row.text(name) for name in names]
    shared = min(common_prefix_length(texts[0], text) for text in texts)
    end = texts[0][:shared].rfind(TURN)
    if end < 0:
        raise DataError(f"field '{row.where}{prompt}' is missing, and the texts share no dialogue up to {TURN!r}")
    end += len(TURN)
    _check_last_turn(row, names, texts, shared, end)
    answers = tuple(text[end:].strip() for text in texts)
    for name, answer in zip(names, answers, strict=True):
        if not answer:
            raise DataError(f"{row.where}{name} has no text after the shared dialogue")
    return texts[0][:end], answers


def _check_last_turn(row: Row, names: Sequence[str], texts: Sequence[str], shared: int, end: int) -> None:
    """Reject dialogues that differ elsewhere than in their last turn.

    Args:
        shared: length of the common prefix. end: start of the assistant's last turn that begins in it.

    Raises:
        DataError: naming the field with a later turn of the human.
    """
    for name, text in zip(names, texts, strict=True):
        if HUMAN in text[end:]:
            difference = "inside a turn of the human" if HUMAN in texts[0][end:shared] else "before their last turn"
            raise DataError(
                f"{row.where}{name} continues with {HUMAN!r} after the dialogue that {' and '.join(names)} share: they differ "
                f"{difference}, and a response is one turn of the assistant to the same prompt; give the prompt in a field of its own, "
                "or leave such rows out"
            )
