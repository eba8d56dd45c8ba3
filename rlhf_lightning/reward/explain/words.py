"""The words of a text, and which of a model's tokens each is made of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlhf_lightning.feedback.standardise import PIECES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["prompt", "response"]
Stretch = tuple[int, int]
"""Characters [start, end) of a text."""


@dataclass(frozen=True)
class Word:
    """text[start:end] of the prompt or the response.

    Attributes:
        tokens: places of its tokens in what the model reads; empty for a model without tokens.
    """

    part: Part
    start: int
    end: int
    tokens: tuple[int, ...] = ()


def plain_words(part: Part, text: str) -> list[Word]:
    """Words, letters of scripts without spaces, and marks."""
    return [Word(part, *match.span()) for match in PIECES.finditer(text) if not match[0].isspace()]


def token_words(part: Part, text: str, offsets: Sequence[Stretch], places: Sequence[int]) -> list[Word]:
    """Every token in exactly one word, in order. Words that share a token are one; a token of blanks belongs to the next word, one with a
    line break is a word of its own.

    Words without a token, beyond what the model reads, are left out.

    Args:
        offsets: the characters that each token stands for; several tokens of one character share its range, or have none.
        places: where the tokens stand in what the model reads.
    """
    said = [_without_blanks(text, *stretch) for stretch in offsets]
    ranges = _filled(said if any(start < end for start, end in said) else offsets)
    joined: list[Stretch] = []
    for start, end in sorted({*ranges, *((word.start, word.end) for word in plain_words(part, text))}):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    held: list[list[int]] = [[] for _ in joined]
    for (start, _), place in zip(ranges, places, strict=True):
        if joined:
            held[max(0, bisect_right(joined, (start, len(text) + 1)) - 1)].append(place)
    return [Word(part, start, end, tuple(own)) for (start, end), own in zip(joined, held, strict=True) if own]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, list[Stretch]]:
    """The text that ids stand for, special tokens written out, and the characters of each.

    For what was not tokenised from one text, a chat in its template. Tokens inside a character get the empty range before it.
    """
    text, offsets = "", list[Stretch]()
    for count in range(1, len(ids) + 1):
        so_far = str(tokenizer.decode(list(ids[:count]), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        whole = so_far if count == len(ids) else so_far.rstrip("\ufffd")
        offsets.append((min(len(text), len(whole)), len(whole)))
        text = whole
    return text, offsets


def neutral_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that says nothing: the mask, where the model was trained with one, else the end-of-text, else the padding."""
    known = (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return int(next((token for token in known if token is not None), 0))


def _filled(offsets: Sequence[Stretch]) -> list[Stretch]:
    """An empty range becomes that of the next token that has one, at the end of the text that of the last."""
    filled = list(offsets)
    for order in (range(len(filled) - 2, -1, -1), range(1, len(filled))):
        for i in order:
            near = filled[i + 1] if order.step < 0 else filled[i - 1]
            if filled[i][0] >= filled[i][1] and near[0] < near[1]:
                filled[i] = near
    return filled


def _without_blanks(text: str, start: int, end: int) -> Stretch:
    """The range without the blanks at its ends, empty where it has nothing else; a line break alone stays."""
    said = text[start:end]
    if not said.strip():
        return (start, end) if "\n" in said else (start, start)
    return start + len(said) - len(said.lstrip()), end - len(said) + len(said.rstrip())
