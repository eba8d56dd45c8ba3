"""Prompts, ends and collation of sampled responses."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from rlhf_lightning.config.schema import unescape
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel, pad_rows
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.tokenization.encoding import special_tokens

StopStrings = tuple[Annotated[str, Field(min_length=1), AfterValidator(unescape)], ...]
"""The type of the samplers' setting: \\n is a line break."""


class ResponseEnds:
    """The ends of responses: end-of-text tokens, and tokens that complete a stop string.

    A stop string that is a special token is one more end token. Others are looked for in the response's text, decoded as
    `LanguageModel.decode` does, never in the prompt: a token completes one if the text up to it contains it.

    Attributes:
        token_ids: the end tokens.
        strings: the stop strings that are texts.

    Raises:
        ConfigError: a stop string with a special token inside, which no decoded text contains.
    """

    def __init__(self, language_model: LanguageModel, prompts: Prompts, stop_strings: Sequence[str] = ()) -> None:
        self.language_model, self.prompts = language_model, prompts
        special = special_tokens(language_model.tokenizer)
        added = [special.ids[string] for string in stop_strings if string in special.special]
        self.token_ids = list(dict.fromkeys([*language_model.eos_ids, *added]))
        self.strings = [string for string in stop_strings if string not in special.special]
        for string in self.strings:
            if special.exact is not None and (match := special.exact.search(string)):
                raise ConfigError(
                    f"rollout_sampler.stop_strings: {string!r} has the special token {match[0]} inside, which no response's text contains: "
                    f"give {match[0]!r} alone, or a text without it"
                )

    def has_ended(self, ids: Tensor, rows: Tensor) -> Tensor:
        """[b] True where the last token of ids [b, t], unpadded responses to these rows, ends one."""
        ended = torch.isin(ids[:, -1], ids.new_tensor(self.token_ids))
        if self.strings:
            tokenizer = self.language_model.tokenizer
            last = _may_complete(tokenizer, tuple(self.strings), len(tokenizer)).to(ids.device)
            # An id beyond the vocabulary, from an embedding with spare rows, adds no text.
            open_rows = (last[ids[:, -1].clamp(max=len(last) - 1)] & ~ended).nonzero().flatten()
            if len(open_rows):
                texts = self._decode(ids[open_rows], rows[open_rows])
                ended[open_rows] = torch.tensor([self._first(text) is not None for text in texts], device=ids.device)
        return ended

    def first_end(self, ids: Sequence[int], row: int) -> int | None:
        """The index of the token that ends the response to a row; None if it is truncated."""
        first = next((i for i, token in enumerate(ids) if token in self.token_ids), None)
        if self.strings and self._contains_stop(ids, row):
            first_stop = bisect.bisect_left(range(len(ids)), True, key=lambda i: self._contains_stop(ids[: i + 1], row))
            return first_stop if first is None else min(first, first_stop)
        return first

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """The texts of responses [B, T] up to their stop string."""
        texts = self.language_model.decode(ids, mask, self.prompts)
        return [text[: self._first(text)] for text in texts] if self.strings else texts

    def _contains_stop(self, ids: Sequence[int], row: int) -> bool:
        prompt_ids = self.prompts.prompt_ids
        (text,) = self._decode(prompt_ids.new_tensor([list(ids)]), torch.tensor([row], device=prompt_ids.device))
        return self._first(text) is not None

    def _decode(self, ids: Tensor, rows: Tensor) -> list[str]:
        return self.language_model.decode(ids, torch.ones_like(ids), self.prompts.select(rows))

    def _first(self, text: str) -> int | None:
        """The index of the first stop string; None without one."""
        starts = [start for string in self.strings if (start := text.find(string)) >= 0]
        return min(starts, default=None)


@functools.lru_cache(maxsize=16)
def _may_complete(tokenizer: Any, strings: tuple[str, ...], size: int) -> Tensor:
    """[V] True for tokens with the last character of a stop string, a part of one, or no text."""
    lasts = {string[-1] for string in strings} | {"\ufffd"}
    ids = range(max(tokenizer.get_vocab().values()) + 1)
    texts = tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return torch.tensor([not text or not lasts.isdisjoint(text) for text in texts])


def check_decoder_only(language_model: LanguageModel, sampler: str) -> None:
    """Reject an encoder-decoder. Raises ConfigError."""
    if language_model.decoder_prefix is not None:
        raise ConfigError(f"rollout_sampler={sampler} draws from decoder-only models; choose rollout_sampler=native for this backbone")


def prompt_rows(prompts: Prompts) -> list[list[int]]:
    """The prompts' ids without padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(prompts.prompt_ids, prompts.prompt_mask, strict=True)]


def rollout_of(
    language_model: LanguageModel, prompts: Prompts, responses: Sequence[Sequence[int]], temperature: float, ends: ResponseEnds
) -> Rollout:
    """Make a rollout of one response per prompt, truncated after its first end.

    Log-probabilities come from the policy's forward pass, independent of the engine's precision and kernels.
    """
    first_ends = [ends.first_end(ids, row) for row, ids in enumerate(responses)]
    rows = [list(ids[: None if end is None else end + 1]) for ids, end in zip(responses, first_ends, strict=True)]
    device = prompts.prompt_ids.device
    ids, mask = (x.to(device) for x in pad_rows(rows, language_model.pad_id))
    texts = [prompt + row for prompt, row in zip(prompt_rows(prompts), rows, strict=True)]
    # A token is predicted by the vector before it.
    starts = torch.tensor([len(text) for text in texts]).cumsum(0)
    positions = torch.cat([torch.arange(int(end) - len(row), int(end)) for end, row in zip(starts, rows, strict=True)]) - 1
    log_probs = torch.zeros(ids.shape, device=device)
    with torch.no_grad():
        hidden = text_vectors(language_model.trunk, PackedTokens.of(texts).to(device))[positions.to(device)]
        log_probs[mask.bool()] = language_model.log_probs(hidden, ids[mask.bool()], temperature, entropy=False)[0].float()
    return Rollout(
        prompts=prompts.prompts, prompt_ids=prompts.prompt_ids, prompt_mask=prompts.prompt_mask, group=prompts.group,
        responses=ends.decode(ids, mask), response_ids=ids, response_mask=mask,
        has_eos=torch.tensor([end is not None for end in first_ends], device=device), sampled_log_probs=log_probs,
        temperature=temperature,
    )  # fmt: skip


def seeds_of(prompts: Prompts) -> Tensor:
    """Seeds [B] of the rows; from torch's generator if they have none."""
    return torch.randint(2**62, (len(prompts),)) if prompts.seeds is None else prompts.seeds.cpu()


def uniform_draws(prompts: Prompts, steps: int) -> Tensor:
    """Uniform numbers [B, steps] in [0, 1), in double precision, on the prompts' device."""
    rows = [torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds_of(prompts).tolist()]
    return torch.stack(rows).to(prompts.prompt_ids.device)
