"""Token ids of a response behind its prompt: what a model that wrote it there would have written."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_lightning.tokenization.encoding import (
    Rendered,
    Span,
    encode,
    encode_plain,
    encode_with_spans,
    special_tokens,
    starts_sections_anew,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", "\u0bf5", "a", ".", "x", "0", "e", "(", "q", "-", "z", "~", "\u044f", "\u4e00", "\u00e9")
"""Texts behind which a response is encoded where it can't be behind its prompt."""
CONTEXT = 16
"""Ids of the prompt by which the text of a response is decoded."""


class Continuation(NamedTuple):
    """The ids of a response.

    Attributes:
        anchor: the text behind which they were encoded; None: the prompt itself.
    """

    ids: list[int]
    anchor: str | None


def encode_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], prompt: Rendered, response: str, joined_ids: Sequence[int]
) -> Continuation:
    """Ids of `response` such that, behind the prompt's ids, they stand for the exact text.

    They are the rest of the joined text's ids where those begin with the prompt's. Elsewhere a token spans the border (a prompt that ends
    inside a word or with a space): the response is then encoded alone, and if that would insert a space (SentencePiece) or start a new
    word (WordPiece), behind another text that is cut off again.

    Args:
        prompt_ids: of the prompt, as a sampler reads them.
        joined_ids: of prompt and response as one text, with the same start.
    """
    size = len(prompt_ids)
    if list(joined_ids[:size]) == list(prompt_ids):
        return Continuation(list(joined_ids[size:]), None)
    expected, exact = _decode(tokenizer, joined_ids), _decode(tokenizer, prompt_ids[-CONTEXT:]) + response
    nearest, least = Continuation([], ""), -1
    for found in _behind_anchors(tokenizer, prompt.text, response):
        if _decode(tokenizer, [*prompt_ids[-CONTEXT:], *found.ids]) == exact:
            return found
        differs = _difference(_decode(tokenizer, [*prompt_ids, *found.ids]), expected)
        if differs == 0:
            return found
        if least < 0 or differs < least:
            nearest, least = found, differs
    return nearest


def continuation_spans(tokenizer: PreTrainedTokenizerBase, found: Continuation, prompt: Rendered, response: Rendered) -> list[Span]:
    """The characters [start, end) of `response` that each of a continuation's ids stands for."""
    lead = prompt if found.anchor is None else Rendered.plain(found.anchor)
    spans = encode_with_spans(tokenizer, lead + response)[1]
    spans = spans[len(spans) - len(found.ids) :]
    size = len(lead.text)
    return [(max(0, start - size), max(0, end - size)) for start, end in spans]


def _behind_anchors(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> Iterator[Continuation]:
    """The response encoded alone and behind each anchor, where a token ends between the two."""
    yield Continuation(encode_plain(tokenizer, response), "")
    last = prompt[-1:]
    for anchor in dict.fromkeys((ANCHORS[0], *(() if last.isspace() else (last,)), *ANCHORS[1:])):
        lead = encode_plain(tokenizer, anchor)
        behind = encode_plain(tokenizer, anchor + response)
        # An unknown character would swallow one that follows it.
        if lead and behind[: len(lead)] == lead and tokenizer.unk_token_id not in lead:
            yield Continuation(behind[len(lead) :], anchor)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _difference(text: str, other: str) -> int:
    """Characters between the common start and the common end of two texts."""
    start = common_prefix_length(text, other)
    end = common_prefix_length(text[start:][::-1], other[start:][::-1])
    return max(len(text), len(other)) - start - end


def common_prefix_length(text: Sequence[Any], other: Sequence[Any]) -> int:
    """The number of equal items, characters or ids, at the start of both."""
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text: the begin-of-text token of many, several of some, nothing of others."""
    full, plain = list(tokenizer("a")["input_ids"]), encode_plain(tokenizer, "a")
    for size in range(len(full) - len(plain) + 1):
        if full[size : size + len(plain)] == plain:
            return full[:size]
    return []


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str, continued: str = "") -> list[int]:
    """Ids of a text that people wrote, behind what the tokenizer puts before one, and of a text that continues it.

    An empty text is the begin-of-text token, where there is one. There is no end-of-text. Special-token strings are plain text.
    """
    start = start_ids(tokenizer)
    if not text and not start and tokenizer.bos_token_id is not None:
        start = [int(tokenizer.bos_token_id)]
    ids, joined = encode(tokenizer, [Rendered.plain(text), Rendered.plain(text + continued)])
    return [*start, *ids, *encode_continuation(tokenizer, ids, Rendered.plain(text), continued, joined).ids]


def decode_continuation(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], is_text_start: bool = False) -> str:
    """The text that ids add behind a prompt, without special tokens; tokenizers strip a leading space from ids decoded alone.

    Args:
        is_text_start: the tokenizer takes what follows for the beginning of a text (`is_text_start`), so that such a space is its own.
    """
    alone = _text(tokenizer, ids)
    if is_text_start:
        return alone
    lead = _lead(tokenizer, len(tokenizer))
    before, both = _text(tokenizer, lead), _text(tokenizer, [*lead, *ids])
    return both[len(before) :] if before and both.startswith(before) else alone


def is_text_start(tokenizer: PreTrainedTokenizerBase, prompt: str, last_id: int) -> bool:
    """Whether a response is the first text for the tokenizer: its prompt is empty, ends with a special token behind which the tokenizer
    starts anew, or with a space that the tokenizer drops."""
    if not prompt or (last_id in special_tokens(tokenizer).ids.values() and starts_sections_anew(tokenizer)):
        return True
    return prompt[-1].isspace() and _drops_last_space(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=16)
def _drops_last_space(tokenizer: Any, size: int) -> bool:
    return encode_plain(tokenizer, "a ") == encode_plain(tokenizer, "a")


@functools.lru_cache(maxsize=16)
def _lead(tokenizer: Any, size: int) -> tuple[int, ...]:
    """Ids that stand for a letter, whatever follows them."""
    for letter in ("a", "e", "x", "1", "."):
        ids = encode_plain(tokenizer, letter)
        if _text(tokenizer, ids).strip() == letter:
            return tuple(ids)
    return ()


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
