"""How a prompt and a response to it are laid out as token ids, for each family of models that reads them.

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

REMEMBERED = 2048
"""Prompts whose ids are remembered while their texts are laid out."""
TrunkKind = Literal["decoder", "encoder", "encoder_decoder"]


@dataclass(frozen=True)
class InputFormat:
    """What a trunk wants to read.

    Attributes:
        kind: the family, which says how a text is laid out.
        decoder_start: the id that an encoder-decoder's decoder begins with.
        typed: the trunk tells prompt and response apart by token types.
    """

    kind: TrunkKind = "decoder"
    decoder_start: int | None = None
    typed: bool = False


class EncodedText(NamedTuple):
    """A text as ids: `before` the response, `answer` the response, `end` after it.

    Attributes:
        types: of before, answer and end together. context: what the encoder of an encoder-decoder reads.
        is_cut: something was longer than allowed. is_rewritten: the chat template drops a part of the response (its thoughts).
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


class PairTemplate(NamedTuple):
    """The special tokens of a tokenizer's own template, around and between its texts, and the token types of its pieces."""

    first: list[int]
    middle: list[int]
    last: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]
    """first, prompt, middle, response, last."""


@dataclass(frozen=True)
class TextEncoder:
    """Lays texts out as ids.

    - decoder: what the tokenizer puts before a text, prompt, response, end-of-text; a chat as its template renders the conversation
      with the answer, to the end of the turn (backbone.turns).
    - encoder: the tokenizer's own template for a pair, [CLS] prompt [SEP] response [SEP], with its token types where the trunk has them;
      as a decoder where the tokenizer has no template.
    - encoder_decoder: the encoder reads the prompt in the template for one text; the decoder its start token and the response in that
      template, so that the vector of the response's last token has read everything.

    A chat prompt goes through the tokenizer's chat template, or is `flow.prompt_text`. Special-token strings in texts are plain text. What
    is longer than max_length loses the beginning of its prompt (not the begin-of-text token), then the end of its response, never what the
    template adds; the two sides of an encoder-decoder have max_length each.

    Attributes:
        stop_ids: tokens at which a policy stops, one of which ends a response; empty for a model that doesn't write.
        eos: end each row with the tokenizer's EOS (True), or a text without one (False). template_tail: keep what a chat template writes
            behind the end of a turn. Both are of foreign classifiers.
    """

    tokenizer: PreTrainedTokenizerBase
    input_format: InputFormat
    max_length: int
    stop_ids: tuple[int, ...] = ()
    eos: bool | None = None
    template_tail: bool = False
    _memory: dict[Any, EncodedPrompt] = field(default_factory=dict, repr=False, compare=False)

    def encode_packed(self, texts: Sequence[tuple[Prompt, str]]) -> tuple[PackedTokens, int]:
        """The texts' rows, and how many of them were cut."""
        rows = self.encode_all(texts)
        return self.pack(rows), sum(row.is_cut for row in rows)

    def pack(self, rows: Sequence[EncodedText]) -> PackedTokens:
        """Rows without padding."""
        two = self.input_format.kind == "encoder_decoder"
        types = [row.types for row in rows] if self.input_format.typed else None
        context = PackedTokens.of([row.context for row in rows]) if two else None
        return PackedTokens.of([row.ids for row in rows], [len(row.before) for row in rows], types, context)

    def encode(self, text: tuple[Prompt, str]) -> EncodedText:
        """One text's row."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[EncodedText]:
        """A row for each text; a prompt of several texts is encoded once."""
        prompts = self._encoded_prompts([prompt for prompt, _ in texts])
        if self.encodes_separately:
            answers = encode(self.tokenizer, [Rendered.plain(response) for _, response in texts])
            return [self._apart(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        joined = joined_ids(self.tokenizer, prompts, [response for _, response in texts], self.stop_ids, self.template_tail)
        return [self._joined(*both) for both in zip(prompts, joined, strict=True)]

    def offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """Where the response's tokens begin in the text's row, and the characters [start, end) of the response that each stands for.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, which don't say where their tokens stand.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"feedback on stretches of a text needs a fast tokenizer, and {type(self.tokenizer).__name__} is none: "
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
        """Prompt and response are texts of their own, in a template for pairs or in encoder and decoder."""
        if self.input_format.kind == "encoder":
            frame = self._pair_template("a")
            return bool(frame.first + frame.middle + frame.last)
        return self.input_format.kind == "encoder_decoder"

    def _encoded_prompts(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """The prompts' ids, from memory where a text had the same prompt before."""
        if len(self._memory) > REMEMBERED:
            self._memory.clear()
        keys = [_key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._memory}
        self._memory.update(zip(new, encode_prompts(self.tokenizer, list(new.values())), strict=True))
        return [self._memory[key] for key in keys]

    def _joined(self, prompt: EncodedPrompt, joined: JoinedIds) -> EncodedText:
        """A text from end to end, as a decoder reads it."""
        start, asked = self._split_start(joined.before, prompt.opening)
        end = self._end(joined)
        cut, answer, is_cut = self._fitting(asked, joined.answer, len(start) + len(end))
        types = [0] * (len(start) + len(cut) + len(answer) + len(end))
        return EncodedText([*start, *cut], answer, end, types, [], is_cut, joined.exchange.is_rewritten)

    def _end(self, joined: JoinedIds) -> list[int]:
        eos, end = self.tokenizer.eos_token_id, joined.end
        if self.eos is False and not self.template_tail:
            return []
        return [*end, int(eos)] if self.eos and eos is not None and end[-1:] != [eos] else end

    def _apart(self, prompt: EncodedPrompt, answer: list[int]) -> EncodedText:
        """Prompt and response in the places of a template, or one before the encoder and one before the decoder."""
        asked = self._split_start([*prompt.opening, *prompt.ids], prompt.opening)[1]
        if self.input_format.kind == "encoder_decoder":
            return self._for_encoder_decoder(asked, answer)
        frame = self._pair_template("a")
        cut, answer, is_cut = self._fitting(asked, answer, len(frame.first) + len(frame.middle) + len(frame.last))
        first, one, middle, other, last = frame.types
        types = [*first, *[one] * len(cut), *middle, *[other] * len(answer), *last]
        return EncodedText([*frame.first, *cut, *frame.middle], answer, frame.last, types, [], is_cut)

    def _for_encoder_decoder(self, asked: list[int], answer: list[int]) -> EncodedText:
        frame = self._pair_template(None)
        if self.input_format.decoder_start is None:
            raise ConfigError("the encoder-decoder names no decoder_start_token_id in its config.json: set it there")
        before = [self.input_format.decoder_start, *frame.first]
        cut, _, context_is_cut = self._fitting(asked, [], len(frame.first) + len(frame.last))
        _, answer, is_cut = self._fitting([], answer, len(before) + len(frame.last))
        context = [*frame.first, *cut, *frame.last]
        # An encoder can't read nothing: where there is neither prompt nor template it reads what the decoder begins with.
        return EncodedText(before, answer, frame.last, [], context or before[:1], is_cut or context_is_cut)

    def _split_start(self, ids: list[int], opening: list[int]) -> tuple[list[int], list[int]]:
        """What begins every text, which is never cut, and the rest of what comes before a response."""
        size = len(opening) or int(bool(ids) and ids[0] == self.tokenizer.bos_token_id)
        return ids[:size], ids[size:]

    def _fitting(self, asked: list[int], answer: list[int], fixed: int) -> tuple[list[int], list[int], bool]:
        """Prompt and response cut to max_length less `fixed` tokens, and whether they had to be."""
        room = max(0, self.max_length - fixed)
        if len(asked) + len(answer) <= room:
            return asked, answer, False
        kept = max(0, room - len(answer))
        return asked[-kept:] if kept else [], answer[:room], True

    def _pair_template(self, pair: str | None) -> PairTemplate:
        return _pair_template(self.tokenizer, pair)


def _key(prompt: Prompt) -> Any:
    """What a prompt is remembered by: a prefix and suffix make another prompt of an equal text."""
    return (prompt.prefix, prompt.content, prompt.suffix) if isinstance(prompt, FramedPrompt) else prompt


def decode_packed(tokenizer: PreTrainedTokenizerBase, tokens: PackedTokens) -> list[dict[str, str]]:
    """The texts that tokens stand for, with special tokens: "prompt" and "response" where it is known where that begins, else "text"."""
    rows = [part.tolist() for part in tokens.ids.split(tokens.lengths.tolist())]
    if tokens.response_start is None:
        return [{"text": _decoded(tokenizer, row)} for row in rows]
    parts = [(row[:start], row[start:]) for row, start in zip(rows, tokens.response_start.tolist(), strict=True)]
    asked = [before for before, _ in parts]
    if tokens.context is not None:
        asked = [part.tolist() for part in tokens.context.ids.split(tokens.context.lengths.tolist())]
    return [
        {"prompt": _decoded(tokenizer, before), "response": _decoded(tokenizer, after)}
        for before, (_, after) in zip(asked, parts, strict=True)
    ]


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


@functools.lru_cache(maxsize=8)
def _pair_template(tokenizer: Any, pair: str | None) -> PairTemplate:
    """The template's own tokens, found by what it adds around "a", or between "a" and `pair`."""
    told = tokenizer("a", pair, return_special_tokens_mask=True, return_token_type_ids=True)
    ids, special, types = told["input_ids"], told["special_tokens_mask"], told["token_type_ids"]
    runs: list[tuple[int, int, int]] = []
    for place, added in enumerate(special):
        if runs and runs[-1][0] == added:
            runs[-1] = (added, runs[-1][1], place + 1)
        else:
            runs.append((added, place, place + 1))
    texts = [run for run in runs if not run[0]]
    if not texts:
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} writes the letter a with no token; give a backbone whose tokenizer does"
        )
    if len(texts) == 1:  # one text, or a pair with nothing between
        one = other = texts[0]
        between = slice(0, 0)
    else:
        one, other = texts[0], texts[-1]
        between = slice(one[2], other[1])
    before, after = slice(0, one[1]), slice(other[2], len(ids))
    kinds = (types[before], types[one[1]], types[between], types[other[2] - 1], types[after])
    return PairTemplate(ids[before], ids[between], ids[after], kinds)
