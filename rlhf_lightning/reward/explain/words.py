"""The words of a text, each with its tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlhf_lightning.feedback.standardise import PIECES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TextPart = Literal["prompt", "response"]
CharRange = tuple[int, int]
"""Characters [start, end) of a text."""


@dataclass(frozen=True)
class Word:
    """text[start:end] of the prompt or the response.

    Attributes:
        tokens: positions of its tokens in the model's input; empty for a model without tokens.
    """

    part: TextPart
    start: int
    end: int
    tokens: tuple[int, ...] = ()


def plain_words(part: TextPart, text: str) -> list[Word]:
    """Split a text into words, letters of scripts without spaces, and marks."""
    return [Word(part, *match.span()) for match in PIECES.finditer(text) if not match[0].isspace()]


def token_words(part: TextPart, text: str, offsets: Sequence[CharRange], positions: Sequence[int]) -> list[Word]:
    """Group tokens to words, each token in exactly one word, in order.

    Words that share a token are joined; a token of blanks belongs to the next word, one with a line break is a word of its own. Words
    without a token, beyond the model's input, are left out.

    Args:
        offsets: the characters of each token; several tokens of one character share its range, or have an empty one.
        positions: of the tokens in the model's input.
    """
    stripped = [_strip_range(text, *offset) for offset in offsets]
    ranges = _fill_empty(stripped if any(start < end for start, end in stripped) else offsets)
    joined: list[CharRange] = []
    for start, end in sorted({*ranges, *((word.start, word.end) for word in plain_words(part, text))}):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    tokens: list[list[int]] = [[] for _ in joined]
    for (start, _), position in zip(ranges, positions, strict=True):
        if joined:
            tokens[max(0, bisect_right(joined, (start, len(text) + 1)) - 1)].append(position)
    return [Word(part, start, end, tuple(inside)) for (start, end), inside in zip(joined, tokens, strict=True) if inside]


def decode_with_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, list[CharRange]]:
    """Decode ids to a text with special tokens, and the characters of each id.

    For ids that weren't encoded from one text, such as a chat's. Tokens inside a character get the empty range before it.
    """
    text, offsets = "", list[CharRange]()
    for count in range(1, len(ids) + 1):
        so_far = str(tokenizer.decode(list(ids[:count]), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        complete = so_far if count == len(ids) else so_far.rstrip("\ufffd")
        offsets.append((min(len(text), len(complete)), len(complete)))
        text = complete
    return text, offsets


def neutral_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of a token without content: the mask if there is one, else the end-of-text, else the padding."""
    candidates = (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return int(next((token for token in candidates if token is not None), 0))


def _fill_empty(offsets: Sequence[CharRange]) -> list[CharRange]:
    """Replace empty ranges by the next token's range, at the end of the text by the last one."""
    filled = list(offsets)
    for order in (range(len(filled) - 2, -1, -1), range(1, len(filled))):
        for i in order:
            near = filled[i + 1] if order.step < 0 else filled[i - 1]
            if filled[i][0] >= filled[i][1] and near[0] < near[1]:
                filled[i] = near
    return filled


def _strip_range(text: str, start: int, end: int) -> CharRange:
    """Strip blanks from a range; a blank range becomes empty unless it has a line break."""
    part = text[start:end]
    if not part.strip():
        return (start, end) if "\n" in part else (start, start)
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
