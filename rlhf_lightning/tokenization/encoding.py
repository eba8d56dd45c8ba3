"""Token ids of texts in which only templates, never user content, contain special tokens."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Characters [start, end) of a text."""


@dataclass(frozen=True)
class Rendered:
    """A text as a model reads it.

    Attributes:
        literal: the spans of user content, in order, in which special-token strings are plain text.
        generated: the spans that a chat template marks by {% generation %} as the model's, in order.
    """

    text: str
    literal: tuple[Span, ...] = ()
    generated: tuple[Span, ...] = ()

    @classmethod
    def plain(cls, text: str) -> Rendered:
        """A text that is all user content."""
        return cls(text, ((0, len(text)),) if text else ())

    @property
    def is_plain(self) -> bool:
        return self.literal == ((0, len(self.text)),)

    def __add__(self, other: Rendered) -> Rendered:
        size = len(self.text)
        spans = [*self.literal]
        for start, end in other.literal:
            if spans and spans[-1][1] == size + start:
                spans[-1] = (spans[-1][0], size + end)
            else:
                spans.append((size + start, size + end))
        return Rendered(self.text + other.text, tuple(spans))

    def until(self, end: int) -> Rendered:
        """The first `end` characters."""
        return Rendered(self.text[:end], tuple((a, min(b, end)) for a, b in self.literal if a < end))

    def starting_at(self, start: int) -> Rendered:
        """The characters from `start` on."""
        return Rendered(self.text[start:], tuple((max(0, a - start), b - start) for a, b in self.literal if b > start))


class SpecialTokens(NamedTuple):
    """The added tokens of a tokenizer.

    Attributes:
        special: tokens that user content must not become, by string.
        special_ids: their ids, without the unknown token's.
        ids: ids of every added token that isn't blank.
        exact, any_case: patterns of the strings in `special`; None if there are none.
        added: pattern of every added token that isn't blank.
    """

    special: dict[str, Any]
    special_ids: frozenset[int]
    ids: dict[str, int]
    exact: re.Pattern[str] | None
    any_case: re.Pattern[str] | None
    added: re.Pattern[str] | None


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """The tokenizer's added tokens, cached until tokens are added."""
    return _special_tokens(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=16)
def _special_tokens(tokenizer: Any, size: int) -> SpecialTokens:
    added = {token.content: (number, token) for number, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    special = {content: token for content, (_, token) in added.items() if token.special}
    ids = {content: int(number) for content, (number, _) in added.items()}
    special_ids = frozenset(ids[content] for content in special) - {tokenizer.unk_token_id}
    return SpecialTokens(special, special_ids, ids, _pattern(special), _pattern(special, re.IGNORECASE), _pattern(added))


def _pattern(contents: Any, flags: int = 0) -> re.Pattern[str] | None:
    """A pattern of strings that prefers the longest match, as tokenizers do."""
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)), flags) if ordered else None


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Rendered]) -> list[list[int]]:
    """Encode texts without the tokens that the tokenizer puts around a text."""
    rows_of_ids: list[list[int]] = [[] for _ in texts]
    batches: dict[bool, list[int]] = {True: [], False: []}
    for i, text in enumerate(texts):
        if text.is_plain or not _has_literal_special(tokenizer, text):
            batches[text.is_plain].append(i)
        else:
            rows_of_ids[i] = [token for ids, _, _ in _sections(tokenizer, text) for token in ids]
    for is_plain, rows in batches.items():
        rows = [i for i in rows if texts[i].text]
        if len(rows) == 1:
            rows_of_ids[rows[0]] = _encode(tokenizer, texts[rows[0]].text, is_plain)
        elif rows:
            for i, ids in zip(rows, _encode(tokenizer, [texts[i].text for i in rows], is_plain), strict=True):
                rows_of_ids[i] = ids
    return rows_of_ids


def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode user content."""
    return list(_encode(tokenizer, text, True)) if text else []


def encode_with_spans(tokenizer: PreTrainedTokenizerBase, text: Rendered) -> tuple[list[int], list[Span]]:
    """Encode one text by a fast tokenizer, with the characters of each token."""
    if not text.text:
        return [], []
    if text.is_plain or not _has_literal_special(tokenizer, text):
        return _encode_with_spans(tokenizer, text.text, text.is_plain)
    ids: list[int] = []
    spans: list[Span] = []
    for section, (start, end), is_special in _sections(tokenizer, text):
        _, inside = ([], [(0, end - start)]) if is_special else _encode_with_spans(tokenizer, text.text[start:end], True)
        # After a special token a section may lack the leading space that it has alone.
        inside = inside[len(inside) - len(section) :] if len(inside) >= len(section) else [(0, end - start)] * len(section)
        ids += section
        spans += [(start + a, start + b) for a, b in inside]
    return ids, spans


def _has_literal_special(tokenizer: PreTrainedTokenizerBase, text: Rendered) -> bool:
    """True if user content contains a special-token string, or a part of one that the template completes."""
    pattern = special_tokens(tokenizer).any_case
    return pattern is not None and any(_overlaps(match.span(), text.literal) for match in pattern.finditer(text.text))


def _overlaps(span: Span, literal: Sequence[Span]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in literal)


def template_tokens(tokenizer: PreTrainedTokenizerBase, text: Rendered) -> list[re.Match[str]]:
    """The special tokens of a rendered text that its template wrote, in order."""
    pattern = special_tokens(tokenizer).exact
    return [] if pattern is None else [m for m in pattern.finditer(text.text) if not _overlaps(m.span(), text.literal)]


def _sections(tokenizer: PreTrainedTokenizerBase, text: Rendered) -> Iterator[tuple[list[int], Span, bool]]:
    """Yield the template's special tokens and the texts between them, as (ids, span, is special).

    Tokenizers encode a text by such sections, too. Special-token strings inside a section are plain text.
    """
    tokens, start = special_tokens(tokenizer), 0
    before: int | None = None
    for match in [*template_tokens(tokenizer, text), None]:
        end = len(text.text) if match is None else match.start()
        if match is not None and tokens.special[match[0]].lstrip:
            end = start + len(text.text[start:end].rstrip())
        if start < end:
            yield _encode_after_special(tokenizer, before, text.text[start:end]), (start, end), False
        if match is not None:
            before, start = tokens.ids[match[0]], match.end()
            yield [before], match.span(), True
            if tokens.special[match[0]].rstrip:
                start += len(text.text[start:]) - len(text.text[start:].lstrip())


def _encode_after_special(tokenizer: PreTrainedTokenizerBase, special: int | None, text: str) -> list[int]:
    """Encode a text after a special token: some tokenizers add a leading space to the first text only."""
    ids = encode_plain(tokenizer, text)
    if special is None or restarts_after_special(tokenizer):
        return ids
    for anchor in ("\n", "a", "."):
        lead = encode_plain(tokenizer, anchor)
        joined = encode_plain(tokenizer, anchor + text)
        if lead and joined[: len(lead)] == lead:
            return joined[len(lead) :]
    return ids


def restarts_after_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if a text after a special token has the ids that it has alone, with its leading space."""
    return _restarts_after_special(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=16)
def _restarts_after_special(tokenizer: Any, size: int) -> bool:
    tokens = special_tokens(tokenizer)
    if not tokens.special:
        return True
    first = next(iter(tokens.special))
    return bool(_encode(tokenizer, f"{first}a", False) == [tokens.ids[first], *encode_plain(tokenizer, "a")])


def _encode(tokenizer: PreTrainedTokenizerBase, text: Any, is_plain: bool) -> Any:
    """Encode a text to ids, or a list of texts to a list of ids."""
    ids = tokenizer(
        text, add_special_tokens=False, split_special_tokens=is_plain, return_attention_mask=False, return_token_type_ids=False
    )["input_ids"]
    if not is_plain:
        return ids
    special = special_tokens(tokenizer).special_ids
    if isinstance(text, str):
        return ids if special.isdisjoint(ids) else _encode_in_parts(tokenizer, text)[0]
    return [row if special.isdisjoint(row) else _encode_in_parts(tokenizer, item)[0] for item, row in zip(text, ids, strict=True)]


def _encode_with_spans(tokenizer: PreTrainedTokenizerBase, text: str, is_plain: bool) -> tuple[list[int], list[Span]]:
    row = tokenizer(text, add_special_tokens=False, split_special_tokens=is_plain, return_offsets_mapping=True)
    if is_plain and not special_tokens(tokenizer).special_ids.isdisjoint(row["input_ids"]):
        return _encode_in_parts(tokenizer, text)
    return list(row["input_ids"]), [(int(a), int(b)) for a, b in row["offset_mapping"]]


def _encode_in_parts(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[Span]]:
    """Encode a text cut inside each special-token string, for models with such pieces (unigram)."""
    pattern = special_tokens(tokenizer).exact
    cuts = [0, *(match.start() + 1 for match in pattern.finditer(text)), len(text)] if pattern else [0, len(text)]
    ids: list[int] = []
    spans: list[Span] = []
    for start, end in itertools.pairwise(cuts):
        # A line break before the part, cut off again, keeps the tokenizer from adding a leading space.
        lead = "\n" if start else ""
        row = tokenizer(lead + text[start:end], add_special_tokens=False, split_special_tokens=True)
        skipped = len(tokenizer(lead, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if lead else 0
        part = row["input_ids"][skipped:]
        ids += part
        spans += [(start, end)] * len(part)
    return ids, spans


UNLIMITED = 2**31
"""Positions of a model with relative positions."""


@dataclass(frozen=True)
class LengthLimit:
    """Maximum tokens of a text, and the remedy for a longer one, as the end of an error message."""

    tokens: int
    remedy: str


def length_limit(wanted: int, positions: int, setting: str) -> LengthLimit:
    """The smaller limit, with a remedy that names it.

    Args:
        wanted: value of the setting.
        positions: of the model, `UNLIMITED` if they are relative.
    """
    if positions > wanted:
        largest = f" (the model has {positions} positions)" if positions < UNLIMITED else ""
        return LengthLimit(wanted, f"raise {setting}={wanted}{largest}, or give shorter texts")
    return LengthLimit(
        positions,
        f"that is all positions of the model, so that {setting}={wanted} doesn't count: give shorter texts, or a model with more positions",
    )
