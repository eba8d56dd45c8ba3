"""Token ids of prompts and responses as one text: before the response, of the response, and after it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lightning.flow import Prompt
from rlhf_lightning.tokenization.boundary import Continuation, common_prefix_length, continuation_spans, encode_continuation
from rlhf_lightning.tokenization.chat_template import opening_ids, render_prompt
from rlhf_lightning.tokenization.encoding import Rendered, Span, encode, encode_with_spans
from rlhf_lightning.tokenization.turns import Exchange, exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPrompt(NamedTuple):
    """A prompt, its text as a sampler reads it, its opening ids, and its ids."""

    prompt: Prompt
    rendered: Rendered
    opening: list[int]
    ids: list[int]


class JoinedIds(NamedTuple):
    """The ids of a prompt with its response: `before` the response, its `answer`, and the `end` after it.

    Attributes:
        exchange: the text.
        continuation: the ids after the prompt's; None if the text doesn't start with the prompt.
    """

    before: list[int]
    answer: list[int]
    end: list[int]
    exchange: Exchange
    continuation: Continuation | None


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Encode prompts. Raises DataError if the chat template rejects a chat."""
    rendered = [render_prompt(tokenizer, prompt) for prompt in prompts]
    return [
        EncodedPrompt(prompt, text, opening_ids(tokenizer, prompt), ids)
        for prompt, text, ids in zip(prompts, rendered, encode(tokenizer, rendered), strict=True)
    ]


def joined_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    responses: Sequence[str],
    stop_ids: Sequence[int],
    template_tail: bool = False,
) -> list[JoinedIds]:
    """Encode each prompt with its response, as `turns.exchange` joins them."""
    pairs = list(zip(prompts, responses, strict=True))
    exchanges = [exchange(tokenizer, prompt.prompt, prompt.rendered, response, stop_ids, template_tail) for prompt, response in pairs]
    encoded = encode(tokenizer, [item.joined for item in exchanges])
    return [_split_ids(tokenizer, *row) for row in zip(prompts, exchanges, encoded, strict=True)]


def _split_ids(tokenizer: PreTrainedTokenizerBase, prompt: EncodedPrompt, text: Exchange, ids: list[int]) -> JoinedIds:
    # The prompt's ids are the sampler's if the text starts with the prompt, else the joined text's common start.
    if text.prompt_end == len(prompt.rendered.text):
        continuation = encode_continuation(tokenizer, prompt.ids, prompt.rendered, text.joined.text[text.prompt_end :], ids)
        before, answer = [*prompt.opening, *prompt.ids], continuation.ids
        joined, size = continuation.anchor is None, len(prompt.ids)
    else:
        continuation, joined = None, True
        size = common_prefix_length(encode(tokenizer, [text.joined.until(text.prompt_end)])[0], ids)
        before, answer = ids[:size], ids[size:]
    # The template's text between answer and end token belongs to the end.
    end = list(text.end)
    if joined and text.answer_end < len(text.joined.text):
        shorter = encode(tokenizer, [text.joined.until(text.answer_end)])[0]
        if shorter == ids[: len(shorter)] and len(shorter) >= size:
            answer, end = answer[: len(shorter) - size], [*answer[len(shorter) - size :], *end]
    return JoinedIds(before, answer, end, text, continuation)


def response_spans(tokenizer: PreTrainedTokenizerBase, prompt: EncodedPrompt, joined: JoinedIds, response: str) -> list[Span]:
    """The characters [start, end) of the response for each id of the answer, without the template's text."""
    text, size = joined.exchange, len(prompt.rendered.text)
    if joined.continuation is None:
        spans = encode_with_spans(tokenizer, text.joined)[1][len(joined.before) :]
    else:
        rest = continuation_spans(tokenizer, joined.continuation, prompt.rendered, text.joined.starting_at(size))
        spans = [(a + size, b + size) for a, b in rest]
    offsets = _align(text.joined.text[text.prompt_end : text.answer_end], response)
    limit = len(offsets) - 1
    inside = [(min(max(0, a - text.prompt_end), limit), min(max(0, b - text.prompt_end), limit)) for a, b in spans[: len(joined.answer)]]
    return [(offsets[start], max(offsets[start], offsets[end])) for start, end in inside]


def _align(answer: str, response: str) -> list[int]:
    """The response's character for each character of the rendered answer, and for its end."""
    body, limit = response.strip(), len(response)
    if body in answer:
        shift = len(response) - len(response.lstrip()) - answer.rfind(body)
    elif answer.strip() in response:
        shift = response.rfind(answer.strip()) - answer.find(answer.strip())
    else:
        offsets: list[int] = []
        for block in difflib.SequenceMatcher(None, answer, response, autojunk=False).get_matching_blocks():
            offsets += [block.b] * (block.a - len(offsets))
            offsets += range(block.b, block.b + block.size)
        return [*offsets, limit]
    return [min(max(0, i + shift), limit) for i in range(len(answer) + 1)]
