"""Token ids of a prompt with its response, in the layout of each family of models.

Shapes: U texts, N tokens of all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import FramedPrompt, Prompt
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.tokenization.encoding import Rendered, encode, encode_with_spans
from rlhf_lightning.tokenization.joined_ids import EncodedPrompt, JoinedIds, encode_prompts, joined_ids, response_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHED_PROMPTS = 2048
"""Maximum number of prompts whose ids are cached."""
TrunkKind = Literal["decoder", "encoder", "encoder_decoder"]


@dataclass(frozen=True)
class InputFormat:
    """The inputs that a trunk expects.

    Attributes:
        kind: the family, which determines the layout of a text.
        decoder_start: the first id of an encoder-decoder's decoder.
        typed: the trunk distinguishes prompt and response by token types.
    """

    kind: TrunkKind = "decoder"
    decoder_start: int | None = None
    typed: bool = False


class EncodedText(NamedTuple):
    """A text as ids: `before` the response, `answer` the response, `end` after it.

    Attributes:
        types: token types of before, answer and end together.
        context: ids for the encoder of an encoder-decoder.
        is_cut: the text exceeded a limit.
        is_rewritten: the chat template drops a part of the response (its thoughts).
    """

    before: list[int]
    answer: list[int]
    end: list[int]
    types: list[int]
    context: list[int]
    is_cut: bool
    is_rewritten: bool = False

    @property
    def ids(self) -> list[int]:
        return [*self.before, *self.answer, *self.end]


class TrainingRow(NamedTuple):
    """A text to train on.

    Attributes:
        mask: True at the ids to learn: the responses and their ends.
        context: ids for the encoder of an encoder-decoder, else None.
        note: for a conversation that became several rows, why.
    """

    ids: list[int]
    mask: list[bool]
    context: list[int] | None
    note: str = ""


class PairTemplate(NamedTuple):
    """The special tokens of a tokenizer's template around and between texts, and token types.

    Attributes:
        types: token types of first, prompt, middle, response and last.
    """

    first: list[int]
    middle: list[int]
    last: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]


@dataclass(frozen=True)
class TextEncoder:
    """Encodes (prompt, response) texts.

    - decoder: the tokenizer's opening tokens, prompt, response, end-of-text; a chat as its template renders the conversation
      with the answer, to the end of the turn (tokenization.turns).
    - encoder: the tokenizer's template for a pair, [CLS] prompt [SEP] response [SEP], with token types if the trunk has them;
      as a decoder if the tokenizer has no template.
    - encoder_decoder: the encoder reads the prompt in the template for one text; the decoder its start token and the response in that
      template, so that the vector of the response's last token depends on everything.

    A chat prompt goes through the tokenizer's chat template or the default one. Special-token strings in texts are plain text.
    Truncation to max_length drops the beginning of the prompt (not the begin-of-text token), then the end of the response, never the
    template's tokens; each side of an encoder-decoder has max_length.

    Attributes:
        stop_ids: tokens at which a policy stops, one of which ends a response; empty for a model that doesn't generate.
        eos: for foreign classifiers: end each row with the tokenizer's EOS (True), or a text without one (False).
        template_tail: for foreign classifiers: keep the chat template's text after the end of a turn.
    """

    tokenizer: PreTrainedTokenizerBase
    input_format: InputFormat
    max_length: int
    stop_ids: tuple[int, ...] = ()
    eos: bool | None = None
    template_tail: bool = False
    _cache: dict[Any, EncodedPrompt] = field(default_factory=dict, repr=False, compare=False)

    def encode_packed(self, texts: Sequence[tuple[Prompt, str]]) -> tuple[PackedTokens, int]:
        """Encode and pack texts; also the number of cut ones."""
        rows = self.encode_all(texts)
        return self.pack(rows), sum(row.is_cut for row in rows)

    def pack(self, rows: Sequence[EncodedText]) -> PackedTokens:
        """Put encoded texts into one row without padding."""
        has_encoder = self.input_format.kind == "encoder_decoder"
        types = [row.types for row in rows] if self.input_format.typed else None
        context = PackedTokens.of([row.context for row in rows]) if has_encoder else None
        return PackedTokens.of([row.ids for row in rows], [len(row.before) for row in rows], types, context)

    def encode(self, text: tuple[Prompt, str]) -> EncodedText:
        """Encode one text."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[EncodedText]:
        """Encode each text; a prompt of several texts is encoded once."""
        prompts = self._encoded_prompts([prompt for prompt, _ in texts])
        if self.encodes_separately:
            answers = encode(self.tokenizer, [Rendered.plain(response) for _, response in texts])
            return [self._fill_template(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        joined = joined_ids(self.tokenizer, prompts, [response for _, response in texts], self.stop_ids, self.template_tail)
        return [self._fill_row(*pair) for pair in zip(prompts, joined, strict=True)]

    def offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """Index of the response's first token, and the characters [start, end) of the response of each token.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, without character offsets.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"feedback on spans of a text needs a fast tokenizer, and {type(self.tokenizer).__name__} is a slow one: "
                "save the model with its tokenizer.json, or leave out that kind of feedback"
            )
        row, (prompt, response) = self.encode(text), text
        if self.encodes_separately:
            spans = encode_with_spans(self.tokenizer, Rendered.plain(response))[1]
        else:
            (encoded,) = self._encoded_prompts([prompt])
            (joined,) = joined_ids(self.tokenizer, [encoded], [response], self.stop_ids, self.template_tail)
            spans = response_spans(self.tokenizer, encoded, joined, response)
        return len(row.before), spans[: len(row.answer)]

    @property
    def encodes_separately(self) -> bool:
        """True if prompt and response are two texts, in a pair template or in encoder and decoder."""
        if self.input_format.kind == "encoder":
            frame = self._pair_template("a")
            return bool(frame.first + frame.middle + frame.last)
        return self.input_format.kind == "encoder_decoder"

    def _encoded_prompts(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """The prompts' ids, cached."""
        if len(self._cache) > CACHED_PROMPTS:
            self._cache.clear()
        keys = [_key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._cache}
        self._cache.update(zip(new, encode_prompts(self.tokenizer, list(new.values())), strict=True))
        return [self._cache[key] for key in keys]

    def _fill_row(self, prompt: EncodedPrompt, joined: JoinedIds) -> EncodedText:
        """Prompt and response as one text, as a decoder reads it."""
        start, prompt_tokens = self._split_start(joined.before, prompt.opening)
        end = self._end(joined)
        cut, answer, is_cut = self._truncate(prompt_tokens, joined.answer, len(start) + len(end))
        types = [0] * (len(start) + len(cut) + len(answer) + len(end))
        return EncodedText([*start, *cut], answer, end, types, [], is_cut, joined.exchange.is_rewritten)

    def _end(self, joined: JoinedIds) -> list[int]:
        eos, end = self.tokenizer.eos_token_id, joined.end
        if self.eos is False and not self.template_tail:
            return []
        return [*end, int(eos)] if self.eos and eos is not None and end[-1:] != [eos] else end

    def _fill_template(self, prompt: EncodedPrompt, answer: list[int]) -> EncodedText:
        """Prompt and response in a template for pairs, or in encoder and decoder."""
        prompt_tokens = self._split_start([*prompt.opening, *prompt.ids], prompt.opening)[1]
        if self.input_format.kind == "encoder_decoder":
            return self._fill_encoder_decoder(prompt_tokens, answer)
        template = self._pair_template("a")
        cut, answer, is_cut = self._truncate(prompt_tokens, answer, len(template.first) + len(template.middle) + len(template.last))
        first, prompt_type, middle, answer_type, last = template.types
        types = [*first, *[prompt_type] * len(cut), *middle, *[answer_type] * len(answer), *last]
        return EncodedText([*template.first, *cut, *template.middle], answer, template.last, types, [], is_cut)

    def _fill_encoder_decoder(self, prompt_tokens: list[int], answer: list[int]) -> EncodedText:
        template = self._pair_template(None)
        if self.input_format.decoder_start is None:
            raise ConfigError("the encoder-decoder names no decoder_start_token_id in its config.json: set it there")
        before = [self.input_format.decoder_start, *template.first]
        cut, _, context_is_cut = self._truncate(prompt_tokens, [], len(template.first) + len(template.last))
        _, answer, is_cut = self._truncate([], answer, len(before) + len(template.last))
        context = [*template.first, *cut, *template.last]
        # An encoder needs at least one token: without prompt and template it gets the decoder's start token.
        return EncodedText(before, answer, template.last, [], context or before[:1], is_cut or context_is_cut)

    def _split_start(self, ids: list[int], opening: list[int]) -> tuple[list[int], list[int]]:
        """Split off the start of every text, which is never cut."""
        size = len(opening) or int(bool(ids) and ids[0] == self.tokenizer.bos_token_id)
        return ids[:size], ids[size:]

    def _truncate(self, prompt: list[int], answer: list[int], fixed: int) -> tuple[list[int], list[int], bool]:
        """Cut prompt and response to max_length less `fixed` tokens; also whether anything was cut."""
        limit = max(0, self.max_length - fixed)
        if len(prompt) + len(answer) <= limit:
            return prompt, answer, False
        prompt_limit = max(0, limit - len(answer))
        return prompt[-prompt_limit:] if prompt_limit else [], answer[:limit], True

    def _pair_template(self, pair: str | None) -> PairTemplate:
        return _pair_template(self.tokenizer, pair)


def _key(prompt: Prompt) -> Any:
    """The cache key of a prompt: equal texts with another prefix or suffix are other prompts."""
    return (prompt.prefix, prompt.content, prompt.suffix) if isinstance(prompt, FramedPrompt) else prompt


def decode_packed(tokenizer: PreTrainedTokenizerBase, tokens: PackedTokens) -> list[dict[str, str]]:
    """Decode packed texts with special tokens into "prompt" and "response", or "text" if not split."""
    rows = [part.tolist() for part in tokens.ids.split(tokens.lengths.tolist())]
    if tokens.response_start is None:
        return [{"text": _decode(tokenizer, row)} for row in rows]
    parts = [(row[:start], row[start:]) for row, start in zip(rows, tokens.response_start.tolist(), strict=True)]
    prompts = [before for before, _ in parts]
    if tokens.context is not None:
        prompts = [part.tolist() for part in tokens.context.ids.split(tokens.context.lengths.tolist())]
    return [
        {"prompt": _decode(tokenizer, prompt), "response": _decode(tokenizer, response)}
        for prompt, (_, response) in zip(prompts, parts, strict=True)
    ]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@functools.lru_cache(maxsize=8)
def _pair_template(tokenizer: Any, pair: str | None) -> PairTemplate:
    """The template's tokens, from the ones that the tokenizer adds around "a", or between "a" and `pair`."""
    encoding = tokenizer("a", pair, return_special_tokens_mask=True, return_token_type_ids=True)
    ids, special, types = encoding["input_ids"], encoding["special_tokens_mask"], encoding["token_type_ids"]
    # Runs of special and of text tokens, as (is special, start, end).
    runs: list[tuple[int, int, int]] = []
    for index, added in enumerate(special):
        if runs and runs[-1][0] == added:
            runs[-1] = (added, runs[-1][1], index + 1)
        else:
            runs.append((added, index, index + 1))
    texts = [run for run in runs if not run[0]]
    if not texts:
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} encodes the letter a as no token; give a backbone whose tokenizer has one for it"
        )
    if len(texts) == 1:  # one text, or a pair without a token between
        first = second = texts[0]
        between = slice(0, 0)
    else:
        first, second = texts[0], texts[-1]
        between = slice(first[2], second[1])
    before, after = slice(0, first[1]), slice(second[2], len(ids))
    kinds = (types[before], types[first[1]], types[between], types[second[2] - 1], types[after])
    return PairTemplate(ids[before], ids[between], ids[after], kinds)
