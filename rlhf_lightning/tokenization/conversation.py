"""Token ids of a conversation of several turns, and which of them are the assistant's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.tokenization.boundary import common_prefix_length
from rlhf_lightning.tokenization.chat_template import render_chat
from rlhf_lightning.tokenization.encoding import Rendered, Span, encode, special_tokens, template_tokens
from rlhf_lightning.tokenization.turns import TurnTemplate, exchange, turn_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXCERPT = 40
"""Characters of a text in a message."""


class ConversationIds(NamedTuple):
    """The ids of a conversation.

    Attributes:
        assistant_mask: True at the assistant's answers and the token that ends each.
    """

    ids: list[int]
    assistant_mask: list[bool]


class UnstableTemplate(DataError):
    """A template that ends no turn, or writes an answer otherwise once the conversation continues."""


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], stop_ids: Sequence[int] = (), context: int = 1
) -> ConversationIds:
    """Encode a conversation by the tokenizer's chat template, with a mask of the assistant's tokens.

    The ids are those of `apply_chat_template`, except that special-token strings in messages stay plain text, and that the end of turn is
    added if the template leaves it to the next turn. An answer extends from the end of its prompt with the generation prompt, as a
    sampler reads it, to the token that ends the turn; a template that marks the model's text by {% generation %} determines it itself.
    An answer without any message before it isn't marked.

    Args:
        stop_ids: as of `turns.turn_template`.
        context: number of messages at the beginning whose answers aren't marked.

    Raises:
        UnstableTemplate: a part of the conversation is rendered or tokenized otherwise than the conversation, so that one row can't train
            all answers as they are sampled; encode each answer with the messages before it.
        DataError: the template rejects the conversation.
    """
    rendered, turn = render_chat(tokenizer, messages, generation=False), turn_template(tokenizer, stop_ids, default=True)
    if not turn.end:
        raise UnstableTemplate(f"{_template_name(tokenizer)} writes no token at the end of a turn")
    answers = [i for i, message in enumerate(messages) if i >= max(1, context) and message.role == "assistant"]
    spans = [_answer_span(tokenizer, messages, index, rendered, stop_ids) for index in answers]
    size = len(rendered.text)
    is_open = bool(spans) and spans[-1][1] > size
    if rendered.generated:
        first = spans[0][0] if spans and context > 1 else 0
        spans = [(start, _include_end(tokenizer, rendered, end, turn)) for start, end in rendered.generated if end > first]
    (ids,) = encode(tokenizer, [rendered])
    bounds = _token_bounds(tokenizer, rendered, ids, [min(bound, size) for span in spans for bound in span])
    mask = [False] * len(ids)
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        if start is None or end is None:
            raise UnstableTemplate(f"with {_template_name(tokenizer)} a token spans the beginning of an answer and the text before it")
        mask[start:end] = [True] * (end - start)
    end_ids = list(turn.end) if is_open else []
    return ConversationIds([*ids, *end_ids], [*mask, *[True] * len(end_ids)])


def _answer_span(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], index: int, rendered: Rendered, stop_ids: Sequence[int]
) -> Span:
    """The characters of an answer and its end, beyond the text's end if that is to be added.

    Raises:
        UnstableTemplate: the conversation up to the answer is rendered otherwise.
    """
    prompt, text = render_chat(tokenizer, messages[:index]), rendered.text
    single = exchange(tokenizer, tuple(messages[:index]), prompt, messages[index].content, stop_ids)
    for part in (prompt.text, single.joined.text):
        same = common_prefix_length(part, text)
        if same < len(part):
            raise UnstableTemplate(
                f"{_template_name(tokenizer)} writes message {index + 1} (assistant) otherwise if the conversation continues, with "
                f"{text[same : same + EXCERPT]!r} instead of {part[same : same + EXCERPT]!r}"
            )
    start, answer_end, end = len(prompt.text), len(single.joined.text), _end_string(tokenizer, single.end)
    gap = len(text[answer_end:]) - len(text[answer_end:].lstrip())
    if text.startswith(end, answer_end + gap):
        return start, answer_end + gap + len(end)
    if index + 1 < len(messages):
        raise UnstableTemplate(f"{_template_name(tokenizer)} writes no {end} after message {index + 1} (assistant)")
    return start, len(text) + 1


def _include_end(tokenizer: PreTrainedTokenizerBase, rendered: Rendered, end: int, turn: TurnTemplate) -> int:
    """The end of a marked span, moved behind the token that ends the turn if that follows at once."""
    tail = turn.lead + _end_string(tokenizer, turn.end)
    return end + len(tail) if rendered.text.startswith(tail, end) else end


def _token_bounds(tokenizer: PreTrainedTokenizerBase, rendered: Rendered, ids: Sequence[int], bounds: Sequence[int]) -> list[int | None]:
    """The number of ids before each position in the text; None where a token spans the position.

    The template's special tokens divide the text and the ids alike, so that only the
    text from the last of them on is encoded again.
    """
    tokens, special = template_tokens(tokenizer, rendered), special_tokens(tokenizer).special_ids
    columns = [i for i, token in enumerate(ids) if token in special]
    if len(columns) != len(tokens):
        tokens, columns = [], []
    anchors = []
    for bound in bounds:
        count = sum(match.end() <= bound for match in tokens)
        anchors.append((tokens[count - 1].start(), columns[count - 1]) if count else (0, 0))
    texts = [rendered.until(bound).starting_at(start) for bound, (start, _) in zip(bounds, anchors, strict=True)]
    counts: list[int | None] = []
    for (_, column), part in zip(anchors, encode(tokenizer, texts), strict=True):
        counts.append(column + len(part) if list(ids[column : column + len(part)]) == part else None)
    return counts


def _end_string(tokenizer: PreTrainedTokenizerBase, end: Sequence[int]) -> str:
    return str(tokenizer.convert_ids_to_tokens(end[0]))


def _template_name(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the chat template of {tokenizer.name_or_path or 'the tokenizer'}"
