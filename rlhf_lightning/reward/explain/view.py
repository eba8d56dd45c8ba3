"""A text as a reward model reads it: its words, and its scores without some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import PromptResponse
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.words import CharRange, Word, decode_with_offsets, neutral_token, plain_words, token_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.regression.feature_score import FeatureScore

BUDGET = 2048
"""Tokens per batch."""


def token_count(tokens: PackedTokens) -> int:
    """Number of tokens that the model reads, with an encoder's context."""
    return len(tokens.ids) + (0 if tokens.context is None else token_count(tokens.context))


def streams(tokens: PackedTokens) -> list[PackedTokens]:
    """The token rows in the order of counting: an encoder's context, then the text."""
    return [tokens] if tokens.context is None else [*streams(tokens.context), tokens]


def concat(texts: Sequence[PackedTokens]) -> PackedTokens:
    """Join texts with the same optional fields to a batch."""

    def column(name: str) -> Tensor | None:
        values = [getattr(text, name) for text in texts]
        return None if values[0] is None else torch.cat(values)

    contexts = [text.context for text in texts if text.context is not None]
    names = (field.name for field in dataclasses.fields(PackedTokens) if field.name != "context")
    columns: dict[str, Any] = {name: column(name) for name in names}
    return PackedTokens(**columns, context=concat(contexts) if contexts else None)


def without(tokens: PackedTokens, positions: Sequence[int], filler: int | None = None) -> PackedTokens:
    """One text without the tokens at these positions, or with the token `filler` in their place.

    A stream that would become empty keeps its length, with filler.
    """
    offset = token_count(tokens) - len(tokens.ids)
    mask = torch.ones(len(tokens.ids), dtype=torch.bool)
    mask[[position - offset for position in positions if position >= offset]] = False
    context = None if tokens.context is None else without(tokens.context, [p for p in positions if p < offset], filler)
    if filler is not None or not mask.any():
        return dataclasses.replace(tokens, ids=tokens.ids.where(mask, filler or 0), context=context)
    start = tokens.response_start
    return dataclasses.replace(
        tokens,
        ids=tokens.ids[mask],
        lengths=mask.sum()[None],
        types=None if tokens.types is None else tokens.types[mask],
        response_start=None if start is None else mask[: int(start)].sum()[None],
        context=context,
    )


@torch.no_grad()
def score_batches(model: Callable[[PackedTokens], Tensor], texts: Sequence[PackedTokens], device: torch.device) -> Tensor:
    """Scores [U] of single texts on the CPU, in batches of about BUDGET tokens."""
    scores = [model(concat(part).to(device)).float().cpu() for part in _batches(texts)]
    return torch.cat(scores) if scores else torch.zeros(0)


def _batches(texts: Sequence[PackedTokens]) -> Iterator[list[PackedTokens]]:
    part, tokens = list[PackedTokens](), 0
    for text in texts:
        if part and tokens + token_count(text) > BUDGET:
            yield part
            part, tokens = [], 0
        part.append(text)
        tokens += token_count(text)
    if part:
        yield part


OcclusionMethod = Literal["remove", "replace"]


class View(Protocol):
    """A text as a reward model reads it.

    Attributes:
        prompt, response: the texts of the words. words: of both, in order. is_truncated: the text is longer than the model reads.
    """

    prompt: str
    response: str
    words: list[Word]
    is_truncated: bool

    def scores_without(self, groups: Sequence[Sequence[int]], method: OcclusionMethod) -> Tensor:
        """Normalised scores [G] of the text without each group of words, given by index."""
        ...

    def scores_until(self, counts: Sequence[int]) -> Tensor:
        """Normalised scores [C] of the text with the response cut after so many words, end-of-text included."""
        ...


class TokenView:
    """A text as the tokens of a language model.

    Attributes:
        tokens: one text. fixed: [N] mask of the special tokens, context of an encoder first.
    """

    def __init__(self, model: RewardModel, text: PromptResponse) -> None:
        if not model.tokenizer.is_fast:
            raise ConfigError(
                f"{type(model.tokenizer).__name__} has no offsets of its tokens' characters: explaining needs a fast tokenizer, "
                "save the model with its tokenizer.json"
            )
        self.model = model
        truncated = model.truncated
        self.tokens = model.tokenise([text])
        self.is_truncated = model.truncated > truncated
        model.truncated = truncated
        first, offsets = model.response_offsets(text)
        context_size = token_count(self.tokens) - len(self.tokens.ids)
        first += context_size
        ids = torch.cat([stream.ids for stream in streams(self.tokens)]).tolist()
        before = range(context_size or first)
        self.answer = range(first, first + len(offsets))
        special = {*model.tokenizer.all_special_ids} - {model.tokenizer.unk_token_id}
        free = {*self.answer, *(position for position in before if ids[position] not in special)}
        self.fixed = torch.tensor([position not in free for position in range(len(ids))])
        self.response = text[1]
        self.prompt, self.words = _prompt_words(model.tokenizer, text[0], ids, before, self.fixed)
        self.words += token_words("response", text[1], offsets, self.answer)

    def scores_without(self, groups: Sequence[Sequence[int]], method: OcclusionMethod) -> Tensor:
        filler = neutral_token(self.model.tokenizer) if method == "replace" else None
        removed = [[position for word in group for position in self.words[word].tokens] for group in groups]
        return self._scores([without(self.tokens, positions, filler) for positions in removed])

    def scores_until(self, counts: Sequence[int]) -> Tensor:
        words = [word for word in self.words if word.part == "response"]
        ends = [1 + max((word.tokens[-1] for word in words[:count]), default=self.answer.start - 1) for count in counts]
        return self._scores([without(self.tokens, range(end, self.answer.stop)) for end in ends])

    def _scores(self, texts: Sequence[PackedTokens]) -> Tensor:
        return score_batches(self.model, texts, self.model.mean.device)


class PlainView:
    """A text as a model without tokens reads it: r = w·phi(x, y) on features of the plain text."""

    is_truncated = False

    def __init__(self, model: FeatureScore, text: PromptResponse) -> None:
        self.model = model
        self.prompt, self.response = prompt_text(text[0]), text[1]
        self.words = [*plain_words("prompt", self.prompt), *plain_words("response", self.response)]

    def scores_without(self, groups: Sequence[Sequence[int]], method: OcclusionMethod) -> Tensor:
        """Remove them by either method: there are no tokens to replace."""
        texts = [
            (
                _cut(self.prompt, [self.words[i] for i in group if self.words[i].part == "prompt"]),
                _cut(self.response, [self.words[i] for i in group if self.words[i].part == "response"]),
            )
            for group in groups
        ]
        return self.model.score_texts([text[0] for text in texts], [text[1] for text in texts])

    def scores_until(self, counts: Sequence[int]) -> Tensor:
        ends = [0, *(word.end for word in self.words if word.part == "response")]
        return self.model.score_texts([self.prompt] * len(counts), [self.response[: ends[count]] for count in counts])


def _prompt_words(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ids: Sequence[int], before: Sequence[int], fixed: Tensor
) -> tuple[str, list[Word]]:
    """The prompt as text, and its words; a chat is decoded from its tokens."""
    free = [position for position in before if not fixed[position]]
    if isinstance(prompt, str):
        encoding = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True) if prompt else {}
        # A prompt that is too long has lost its beginning.
        lost = len(encoding.get("input_ids", [])) - len(free)
        if lost >= 0 and encoding.get("input_ids", [])[lost:] == [ids[position] for position in free]:
            offsets: list[CharRange] = [(int(a), int(b)) for a, b in encoding.get("offset_mapping", [])[lost:]]
            return prompt, token_words("prompt", prompt, offsets, free)
    text, offsets = decode_with_offsets(tokenizer, [ids[position] for position in before])
    words = [(offset, position) for offset, position in zip(offsets, before, strict=True) if not fixed[position]]
    return text, token_words("prompt", text, [offset for offset, _ in words], [position for _, position in words])


def _cut(text: str, words: Sequence[Word]) -> str:
    """The text without the words and the blanks before each."""
    for word in sorted(words, key=lambda word: -word.start):
        before = text[: word.start].rstrip()
        text = before + text[word.end :] if before else text[word.end :].lstrip()
    return text
