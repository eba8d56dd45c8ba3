"""Token ids of prompts and responses as one text each: those before the response, the response's, and those that end it."""

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
    """A prompt, its text as a sampler reads it, what comes before its ids, and its ids."""

    prompt: Prompt
    rendered: Rendered
    opening: list[int]
    ids: list[int]


class JoinedIds(NamedTuple):
    """The ids of a prompt with its response: `before` the response, its `answer`, and the `end` behind it.

    Attributes:
        exchange: the text. found: the ids behind the prompt's; None where the text doesn't begin with the prompt.
    """

    before: list[int]
    answer: list[int]
    end: list[int]
    exchange: Exchange
    found: Continuation | None


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Raises DataError where the chat template rejects a chat."""
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
    """Ids of each prompt with its response, as `turns.exchange` joins them."""
    pairs = list(zip(prompts, responses, strict=True))
    exchanges = [exchange(tokenizer, prompt.prompt, prompt.rendered, response, stop_ids, template_tail) for prompt, response in pairs]
    encoded = encode(tokenizer, [one.joined for one in exchanges])
    return [_divided(tokenizer, prompt, one, ids) for prompt, one, ids in zip(prompts, exchanges, encoded, strict=True)]


def _divided(tokenizer: PreTrainedTokenizerBase, prompt: EncodedPrompt, one: Exchange, ids: list[int]) -> JoinedIds:
    if one.prompt_end == len(prompt.rendered.text):
        found = encode_continuation(tokenizer, prompt.ids, prompt.rendered, one.joined.text[one.prompt_end :], ids)
        before, answer = [*prompt.opening, *prompt.ids], found.ids
        joined, size = found.anchor is None, len(prompt.ids)
    else:
        found, joined, size = None, True, common_prefix_length(encode(tokenizer, [one.joined.until(one.prompt_end)])[0], ids)
        before, answer = ids[:size], ids[size:]
    end = list(one.end)
    if joined and one.answer_end < len(one.joined.text):
        # The template's text between answer and end token ends the row, too.
        shorter = encode(tokenizer, [one.joined.until(one.answer_end)])[0]
        if shorter == ids[: len(shorter)] and len(shorter) >= size:
            answer, end = answer[: len(shorter) - size], [*answer[len(shorter) - size :], *end]
    return JoinedIds(before, answer, end, one, found)


def response_spans(tokenizer: PreTrainedTokenizerBase, prompt: EncodedPrompt, joined: JoinedIds, response: str) -> list[Span]:
    """The characters [start, end) of the response that each id of the answer stands for; nothing of what the template added."""
    one, size = joined.exchange, len(prompt.rendered.text)
    if joined.found is None:
        spans = encode_with_spans(tokenizer, one.joined)[1][len(joined.before) :]
    else:
        behind = Rendered(one.joined.text[size:], tuple((max(0, a - size), b - size) for a, b in one.joined.literal if b > size))
        spans = [(a + size, b + size) for a, b in continuation_spans(tokenizer, joined.found, prompt.rendered, behind)]
    places = _places(one.joined.text[one.prompt_end : one.answer_end], response)
    limit = len(places) - 1
    inside = [(min(max(0, a - one.prompt_end), limit), min(max(0, b - one.prompt_end), limit)) for a, b in spans[: len(joined.answer)]]
    return [(places[start], max(places[start], places[end])) for start, end in inside]


def _places(answer: str, response: str) -> list[int]:
    """For each character of the answer as a template writes it, and for its end, the response's character."""
    body, limit = response.strip(), len(response)
    if body in answer:
        shift = len(response) - len(response.lstrip()) - answer.rfind(body)
    elif answer.strip() in response:
        shift = response.rfind(answer.strip()) - answer.find(answer.strip())
    else:
        places: list[int] = []
        for block in difflib.SequenceMatcher(None, answer, response, autojunk=False).get_matching_blocks():
            places += [block.b] * (block.a - len(places))
            places += range(block.b, block.b + block.size)
        return [*places, limit]
    return [min(max(0, i + shift), limit) for i in range(len(answer) + 1)]
