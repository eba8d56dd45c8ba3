"""Demonstrations as rows of token ids, with the tokens that are learned."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.flow import Message
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import TrainingRow


def demonstration_rows(language_model: LanguageModel, demonstration: Demonstration) -> list[TrainingRow]:
    """Encode a text with its response as a row, or a conversation by `LanguageModel.conversation_rows`."""
    if isinstance(demonstration.response, str):
        ids, start, context = language_model.text_ids(demonstration.prompt, demonstration.response)
        return [TrainingRow(ids, [i >= start for i in range(len(ids))], context)]
    messages = conversation_of(demonstration)
    return language_model.conversation_rows(messages, len(messages) - len(demonstration.response))


def conversation_of(row: TaskPrompt | Demonstration) -> tuple[Message, ...]:
    """The messages of a prompt or demonstration; empty for texts."""
    response = row.response if isinstance(row, Demonstration) else ()
    if isinstance(row.prompt, str):
        return (Message(role="user", content=row.prompt), *response) if response and not isinstance(response, str) else ()
    return (*row.prompt, *((Message(role="assistant", content=response),) if isinstance(response, str) else response))


def pack(rows: Sequence[TrainingRow]) -> PackedTokens:
    """Pack rows, with a mask if the learned part of one isn't its end."""
    starts = [row.mask.index(True) for row in rows]
    contexts = [row.context for row in rows if row.context is not None]
    has_gaps = not all(all(row.mask[start:]) for row, start in zip(rows, starts, strict=True))
    return PackedTokens.of(
        [row.ids for row in rows],
        starts,
        context=PackedTokens.of(contexts) if contexts else None,
        response_mask=[row.mask for row in rows] if has_gaps else None,
    )
