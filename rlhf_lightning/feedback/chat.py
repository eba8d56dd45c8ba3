"""Prompts and responses as text or as the messages of a chat (TRL's "conversational" rows), the same in every format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, filled, kind_of
from rlhf_lightning.feedback.unknown_fields import listed, shared_start
from rlhf_lightning.flow import Message, Prompt

ROLES = get_args(Message.model_fields["role"].annotation)
TURN = "\n\nAssistant:"
HUMAN = "\n\nHuman:"
"""How the turns of an HH-RLHF dialogue begin. Its responses may hold an "Assistant:" of their own, which is no other turn."""


def prompt_of(row: Row, name: str | None) -> Prompt:
    """The row's prompt: a text, or a list of {"role", "content"} messages of which the last isn't the assistant's.

    Without a name the responses were judged by themselves: the empty text. Raises DataError for anything else.
    """
    if name is None:
        return ""
    value = row.get(name)
    if not isinstance(value, list):
        return row.text(name)
    where = row.where + name
    if not value:
        raise DataError(f"{where} is an empty list")
    return before_answer(messages(value, where), where)


def response_of(row: Row, name: str, prompt: Prompt) -> str:
    """The row's response to the prompt: a text, or one message of the assistant.

    Messages may repeat the prompt in front of it, as UltraFeedback's binarized rows do. Longer answers are refused: a response is one
    turn.
    """
    value = row.get(name)
    if not isinstance(value, list):
        return row.text(name)
    where = row.where + name
    return _answer(_after(prompt, messages(value, where)), where)


def responses_of(row: Row, prompt: str | None, names: Sequence[str]) -> tuple[Prompt, tuple[str, ...]]:
    """The row's prompt and its responses in the order of their fields; a prompt that isn't there is what the responses share.

    Lists of messages share all but their last message. Texts share a dialogue up to a last "\\n\\nAssistant:", as Anthropic's HH-RLHF
    stores it; what follows, without blanks around, are the responses. A prompt that is null is missing, not shared.
    """
    if prompt is None or row.has(prompt):
        asked = prompt_of(row, prompt)
        return asked, tuple(response_of(row, name, asked) for name in names)
    values = [row.get(name) for name in names]
    if not any(isinstance(value, list) for value in values):
        return _split(row, prompt, names)
    talks = [messages(row.items(name), row.where + name) for name in names]
    shared = talks[0][:-1]
    if not shared or any(talk[:-1] != shared for talk in talks):
        raise DataError(f"field '{row.where}{prompt}' is missing, and {' and '.join(names)} don't share all messages but the last")
    asked = before_answer(shared, f"{row.where}{names[0]} before its last message")
    return asked, tuple(_answer(talk[-1:], row.where + name) for talk, name in zip(talks, names, strict=True))


def messages(items: Sequence[Any], where: str, beside: Collection[str] = ()) -> tuple[Message, ...]:
    """A list of {"role", "content"} objects as messages.

    Args:
        where: the list's name, for error messages.
        beside: other keys that a message may have; a key that holds null is as if absent.

    Raises:
        DataError: another role, content that isn't text or is blank, or another key.
    """
    return tuple(_message(item, f"{where}[{i}]", beside) for i, item in enumerate(items))


def before_answer(talk: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """The messages before an answer of the assistant. Raises DataError where the last of them is the assistant's already."""
    if talk and talk[-1].role == "assistant":
        raise DataError(f"{where} ends with the assistant, but the response is the assistant's next message; a user or tool comes between")
    return talk


def _message(item: Any, where: str, beside: Collection[str]) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"{where} must be a message {{'role', 'content'}}, not {kind_of(item)}")
    for name in ("role", "content"):
        if name not in item:
            raise DataError(f"field '{where}.{name}' is missing")
    if item["role"] not in ROLES:
        raise DataError(f"{where}.role must be one of {', '.join(ROLES)}, not {kind_of(item['role'])}")
    extra = [key for key, value in item.items() if key not in ("role", "content", *beside) and value is not None]
    if extra:
        raise DataError(f"{where} holds {listed(extra)}, which a message of text doesn't have; take it out, or set it to null")
    if isinstance(item["content"], list):
        kinds = sorted({str(part.get("type")) for part in item["content"] if isinstance(part, dict)})
        raise DataError(
            f"{where}.content must be text, not a list of parts{f' of type {listed(kinds)}' if kinds else ''}: models here read texts alone"
        )
    return Message(role=item["role"], content=filled(item["content"], f"{where}.content"))


def _after(prompt: Prompt, talk: tuple[Message, ...]) -> tuple[Message, ...]:
    asked = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    return talk[len(asked) :] if talk[: len(asked)] == asked else talk


def _answer(talk: tuple[Message, ...], where: str) -> str:
    if len(talk) != 1 or talk[0].role != "assistant":
        roles = ", ".join(message.role for message in talk) or "none"
        raise DataError(
            f"{where} must hold one message of the assistant after the prompt, not {len(talk)} ({roles}); judge turns one by one"
        )
    return talk[0].content


def _split(row: Row, prompt: str, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    texts = [row.text(name) for name in names]
    shared = min(shared_start(texts[0], text) for text in texts)
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
        shared: characters that all texts begin with. end: where the last turn of the assistant that begins in them starts.

    Raises:
        DataError: naming the field that has another turn of the human behind it.
    """
    for name, text in zip(names, texts, strict=True):
        if HUMAN in text[end:]:
            apart = "inside a turn of the human" if HUMAN in texts[0][end:shared] else "before their last turn"
            raise DataError(
                f"{row.where}{name} goes on with {HUMAN!r} behind the dialogue that {' and '.join(names)} share: they differ {apart}, and "
                "a response is one turn of the assistant to the same prompt; give the prompt in a field of its own, or leave such rows out"
            )
