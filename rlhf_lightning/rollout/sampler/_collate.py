"""Conversion of an engine's responses, lists of ids, to a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel, pad_rows
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.rollout.sampler._stop_strings import ResponseEnds


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
