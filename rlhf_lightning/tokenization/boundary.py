"""Token ids of a response after its prompt, as a model would have generated them there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_lightning.flow import Prompt
from rlhf_lightning.tokenization.encoding import (
    Rendered,
    Span,
    encode,
    encode_plain,
    encode_with_spans,
    restarts_after_special,
    special_tokens,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", "\u0bf5", "a", ".", "x", "0", "e", "(", "q", "-", "z", "~", "\u044f", "\u4e00", "\u00e9")
"""Texts after which a response is encoded if it can't be after its prompt."""
CONTEXT = 16
"""Number of the prompt's last ids with which a response is decoded."""


class Continuation(NamedTuple):
    """The ids of a response, encoded after `anchor`, or after the prompt if that is None."""

    ids: list[int]
    anchor: str | None


def encode_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], prompt: Rendered, response: str, joined_ids: Sequence[int]
) -> Continuation:
    """Encode `response` so that, after the prompt's ids, it decodes to the exact text.

    If the joined text's ids start with the prompt's, the rest is the response. Otherwise a token spans the boundary (a prompt that
    ends inside a word or with a space): the response is then encoded alone, and if that would insert a space (SentencePiece) or start
    a new word (WordPiece), after another text that is cut off again.

    Args:
        prompt_ids: ids of the prompt, as a sampler reads them.
        joined_ids: ids of prompt and response as one text, with the same start.
    """
    size = len(prompt_ids)
    if list(joined_ids[:size]) == list(prompt_ids):
        return Continuation(list(joined_ids[size:]), None)
    expected, exact = _decode(tokenizer, joined_ids), _decode(tokenizer, prompt_ids[-CONTEXT:]) + response
    nearest, least = Continuation([], ""), -1
    for candidate in _anchored_encodings(tokenizer, prompt.text, response):
        if _decode(tokenizer, [*prompt_ids[-CONTEXT:], *candidate.ids]) == exact:
            return candidate
        difference = _difference(_decode(tokenizer, [*prompt_ids, *candidate.ids]), expected)
        if difference == 0:
            return candidate
        if least < 0 or difference < least:
            nearest, least = candidate, difference
    return nearest


def continuation_spans(tokenizer: PreTrainedTokenizerBase, continuation: Continuation, prompt: Rendered, response: Rendered) -> list[Span]:
    """The characters [start, end) of `response` for each of a continuation's ids."""
    lead = prompt if continuation.anchor is None else Rendered.plain(continuation.anchor)
    spans = encode_with_spans(tokenizer, lead + response)[1]
    spans = spans[len(spans) - len(continuation.ids) :]
    size = len(lead.text)
    return [(max(0, start - size), max(0, end - size)) for start, end in spans]


def _anchored_encodings(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> Iterator[Continuation]:
    """Encode the response alone, and after each anchor at whose end a token ends."""
    yield Continuation(encode_plain(tokenizer, response), "")
    last = prompt[-1:]
    for anchor in dict.fromkeys((ANCHORS[0], *(() if last.isspace() else (last,)), *ANCHORS[1:])):
        lead = encode_plain(tokenizer, anchor)
        joined = encode_plain(tokenizer, anchor + response)
        # An unknown character would absorb one that follows it.
        if lead and joined[: len(lead)] == lead and tokenizer.unk_token_id not in lead:
            yield Continuation(joined[len(lead) :], anchor)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _difference(text: str, other: str) -> int:
    """Number of characters between the common start and the common end of two texts."""
    start = common_prefix_length(text, other)
    end = common_prefix_length(text[start:][::-1], other[start:][::-1])
    return max(len(text), len(other)) - start - end


def common_prefix_length(text: Sequence[Any], other: Sequence[Any]) -> int:
    """The number of equal items, characters or ids, at the start of both."""
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the tokenizer puts before every text: the begin-of-text token, several or none."""
    full, plain = list(tokenizer("a")["input_ids"]), encode_plain(tokenizer, "a")
    for size in range(len(full) - len(plain) + 1):
        if full[size : size + len(plain)] == plain:
            return full[:size]
    return []


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str, continued: str = "") -> list[int]:
    """Encode a text and its continuation as plain text, with the tokenizer's start but no end-of-text.

    An empty text is the begin-of-text token, if there is one. Special-token strings are plain text.
    """
    start = start_ids(tokenizer)
    if not text and not start and tokenizer.bos_token_id is not None:
        start = [int(tokenizer.bos_token_id)]
    ids, joined = encode(tokenizer, [Rendered.plain(text), Rendered.plain(text + continued)])
    return [*start, *ids, *encode_continuation(tokenizer, ids, Rendered.plain(text), continued, joined).ids]


def decode_continuation(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], at_start: bool = False) -> str:
    """Decode ids as a continuation, without special tokens, keeping a leading space.

    Args:
        at_start: the tokenizer reads the ids as the start of a text (`is_text_start`), to which it adds such a space itself.
    """
    text = _text(tokenizer, ids)
    if at_start:
        return text
    lead = _lead(tokenizer, len(tokenizer))
    before, joined = _text(tokenizer, lead), _text(tokenizer, [*lead, *ids])
    return joined[len(before) :] if before and joined.startswith(before) else text


def is_text_start(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, last_id: int) -> bool:
    """True if the tokenizer reads a response as the start of a text.

    Its prompt is empty, ends with a special token after which the tokenizer starts anew, or with a space that it drops.
    """
    if not prompt or (last_id in special_tokens(tokenizer).ids.values() and restarts_after_special(tokenizer)):
        return True
    return isinstance(prompt, str) and prompt[-1].isspace() and _drops_last_space(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=16)
def _drops_last_space(tokenizer: Any, size: int) -> bool:
    return encode_plain(tokenizer, "a ") == encode_plain(tokenizer, "a")


@functools.lru_cache(maxsize=16)
def _lead(tokenizer: Any, size: int) -> tuple[int, ...]:
    """Ids of a letter that doesn't merge with other characters."""
    for letter in ("a", "e", "x", "1", "."):
        ids = encode_plain(tokenizer, letter)
        if _text(tokenizer, ids).strip() == letter:
            return tuple(ids)
    return ()


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
