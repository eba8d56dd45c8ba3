"""Sampling by transformers' continuous batching with a paged cache."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler._decoder import is_recurrent
from rlhf_lightning.rollout.sampler._responses import ResponseEnds, StopStrings, check_decoder_only, prompt_rows, rollout_of, seeds_of


@register("rollout_sampler", "continuous")
@torch.no_grad()
def continuous(
    language_model: LanguageModel,
    prompts: Prompts,
    *,
    max_new_tokens: PositiveInt = 48,
    temperature: PositiveFloat = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    stop_strings: StopStrings = (),
    page_size: PositiveInt = 256,
    blocks: PositiveInt | None = None,
) -> Rollout:
    """Sample with transformers' continuous batching (generate_batch), for long responses on a GPU.

    Log-probabilities come from a forward pass of the policy over the responses, because the engine has other kernels.

    Args:
        max_new_tokens: a response that reaches it without an EOS is truncated.
        temperature: the logits are divided by it; above 0.
        top_p: sample from the smallest set of tokens with this probability.
        stop_strings: texts that end a response, as an end-of-text does; the engine samples on behind a text, which is then cut off.
        page_size: tokens of a page of the cache.
        blocks: pages of the cache; None for as many as fit in the device's memory, and on a CPU as the prompts need.

    Raises:
        ConfigError: an encoder-decoder, or a model whose layers aren't transformers' attention.
        UserError: the engine gave up on a prompt; the message has its cause.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    _check_attention(language_model)
    ends, rows = ResponseEnds(language_model, prompts, stop_strings), prompt_rows(prompts)
    model = language_model.model
    if blocks is None and model.device.type == "cpu":
        blocks = sum(-(-(len(row) + max_new_tokens) // page_size) for row in rows) + len(rows)
    settings = GenerationConfig(
        do_sample=True, temperature=temperature, top_p=top_p, top_k=0, max_new_tokens=max_new_tokens,
        eos_token_id=ends.token_ids, pad_token_id=language_model.pad_id,
    )  # fmt: skip
    seed = int(seeds_of(prompts)[0]) % 2**31  # the engine takes one for all rows
    paging = ContinuousBatchingConfig(page_size=page_size, num_blocks=blocks, seed=seed, allow_block_sharing=False)
    outputs = _generate_batch(model, rows, settings, paging)
    failed = [output.error for output in outputs if output.error is not None]
    if failed or len(outputs) != len(rows):
        cause = failed[0] if failed else "the engine stopped; its log above says why"
        raise UserError(f"rollout_sampler=continuous drew {len(outputs) - len(failed)} of {len(rows)} responses: {cause}")
    return rollout_of(language_model, prompts, [output.generated_tokens for output in outputs], temperature, ends)


def _check_attention(language_model: LanguageModel) -> None:
    """Reject a model whose keys and values can't be paged. Raises ConfigError."""
    check_decoder_only(language_model, "continuous")
    if is_recurrent(language_model.model) or not getattr(language_model.model, "_supports_attention_backend", False):
        raise ConfigError(
            f"rollout_sampler=continuous pages the keys and values of attention layers, and {type(language_model.model).__name__} has "
            "other layers or another attention: choose rollout_sampler=native"
        )


def _generate_batch(model: Any, rows: list[list[int]], settings: Any, paging: Any) -> list[Any]:
    """Call generate_batch with SDPA and an empty generation config, and restore both."""
    attention, saved_config = model.config._attn_implementation, model.generation_config
    model.generation_config = type(settings)()
    try:
        model.set_attn_implementation("sdpa")
        return list(model.generate_batch(rows, settings, paging, warmup=False).values())
    finally:
        model.generation_config = saved_config
        model.set_attn_implementation(attention)
