"""How a reward model reads a text: its words, and the scores of the text without some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import Text
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.variants import scored, size, streams, without
from rlhf_lightning.reward.explain.words import Stretch, Word, decoded, neutral_token, plain_words, token_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.regression.feature_score import FeatureScore

Occluded = Literal["remove", "replace"]


class View(Protocol):
    """A text as a reward model reads it.

    Attributes:
        prompt, response: the texts in which the words stand. words: of both, in order. is_truncated: the model doesn't read all of it.
    """

    prompt: str
    response: str
    words: list[Word]
    is_truncated: bool

    def scores_without(self, groups: Sequence[Sequence[int]], how: Occluded) -> Tensor:
        """Normalised scores [G] of the text without the words of each group, by their index."""
        ...

    def scores_until(self, counts: Sequence[int]) -> Tensor:
        """Normalised scores [C] of the text whose response ends after so many words, the end-of-text behind it."""
        ...


class TokenView:
    """A text as the tokens of a language model.

    Attributes:
        tokens: one text. fixed: [N] special tokens that every text has, context of an encoder first.
    """

    def __init__(self, model: RewardModel, text: Text) -> None:
        if not model.tokenizer.is_fast:
            raise ConfigError(
                f"{type(model.tokenizer).__name__} doesn't say which characters its tokens stand for: explaining needs a fast tokenizer, "
                "save the model with its tokenizer.json"
            )
        self.model = model
        truncated = model.truncated
        self.tokens = model.tokenise([text])
        self.is_truncated = model.truncated > truncated
        model.truncated = truncated
        first, offsets = model.response_offsets(text)
        own = size(self.tokens) - len(self.tokens.ids)
        first += own
        ids = torch.cat([stream.ids for stream in streams(self.tokens)]).tolist()
        before = range(own or first)
        self.answer = range(first, first + len(offsets))
        special = {*model.tokenizer.all_special_ids} - {model.tokenizer.unk_token_id}
        free = {*self.answer, *(place for place in before if ids[place] not in special)}
        self.fixed = torch.tensor([place not in free for place in range(len(ids))])
        self.response = text[1]
        self.prompt, self.words = _prompt_words(model.tokenizer, text[0], ids, before, self.fixed)
        self.words += token_words("response", text[1], offsets, self.answer)

    def scores_without(self, groups: Sequence[Sequence[int]], how: Occluded) -> Tensor:
        filler = neutral_token(self.model.tokenizer) if how == "replace" else None
        cut = [[place for word in group for place in self.words[word].tokens] for group in groups]
        return self._scored([without(self.tokens, places, filler) for places in cut])

    def scores_until(self, counts: Sequence[int]) -> Tensor:
        words = [word for word in self.words if word.part == "response"]
        ends = [1 + max((word.tokens[-1] for word in words[:count]), default=self.answer.start - 1) for count in counts]
        return self._scored([without(self.tokens, range(end, self.answer.stop)) for end in ends])

    def _scored(self, texts: Sequence[PackedTokens]) -> Tensor:
        return scored(self.model, texts, self.model.mean.device)


class PlainView:
    """A text as a model without tokens reads it: r = w·phi(x, y) on features of the plain text."""

    is_truncated = False

    def __init__(self, model: FeatureScore, text: Text) -> None:
        self.model = model
        self.prompt, self.response = prompt_text(text[0]), text[1]
        self.words = [*plain_words("prompt", self.prompt), *plain_words("response", self.response)]

    def scores_without(self, groups: Sequence[Sequence[int]], how: Occluded) -> Tensor:
        """Without them in either way: there is no token to put in their place."""
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
    """The prompt as it is shown, and its words; a chat, or what can't be found again in the text, as its tokens say it."""
    free = [place for place in before if not fixed[place]]
    if isinstance(prompt, str):
        told = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True) if prompt else {}
        # What doesn't fit has lost its beginning.
        lost = len(told.get("input_ids", [])) - len(free)
        if lost >= 0 and told.get("input_ids", [])[lost:] == [ids[place] for place in free]:
            offsets: list[Stretch] = [(int(a), int(b)) for a, b in told.get("offset_mapping", [])[lost:]]
            return prompt, token_words("prompt", prompt, offsets, free)
    text, offsets = decoded(tokenizer, [ids[place] for place in before])
    kept = [(offset, place) for offset, place in zip(offsets, before, strict=True) if not fixed[place]]
    return text, token_words("prompt", text, [offset for offset, _ in kept], [place for _, place in kept])


def _cut(text: str, words: Sequence[Word]) -> str:
    """The text without the words and the blanks before each."""
    for word in sorted(words, key=lambda word: -word.start):
        before = text[: word.start].rstrip()
        text = before + text[word.end :] if before else text[word.end :].lstrip()
    return text
