"""Sampling by transformers' generate: slower than `native`, the common baseline."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler._decoder import reads_padding
from rlhf_lightning.rollout.sampler._responses import ResponseEnds, StopStrings, seeds_of
from rlhf_lightning.tensors import log_probs_of


@register("rollout_sampler", "transformers")
@torch.no_grad()
def transformers(
    language_model: LanguageModel,
    prompts: Prompts,
    *,
    max_new_tokens: PositiveInt = 48,
    temperature: PositiveFloat = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    stop_strings: StopStrings = (),
) -> Rollout:
    """Sample one response per prompt with transformers' generate.

    The model's generation config is overridden if it would change the distribution (top_k, penalties): log-probabilities are those of
    the sampled distribution.

    Args:
        max_new_tokens: a response that reaches it without an EOS is truncated.
        temperature: the logits are divided by it; above 0.
        top_p: sample from the smallest set of tokens with this probability.
        stop_strings: texts that end a response, as an end-of-text does.
    """
    from transformers import GenerationConfig

    ends = ResponseEnds(language_model, prompts, stop_strings)
    settings = GenerationConfig(
        do_sample=True, temperature=temperature, top_p=top_p, top_k=0, max_new_tokens=max_new_tokens,
        eos_token_id=ends.token_ids, pad_token_id=language_model.pad_id,
    )  # fmt: skip
    model, saved_config = language_model.model, language_model.model.generation_config
    model.generation_config = GenerationConfig()  # generate takes defaults from here
    try:
        parts = [(rows, *_generate(language_model, prompts, rows, settings, ends)) for rows in _groups(language_model, prompts)]
    finally:
        model.generation_config = saved_config
    steps = max(response.shape[1] for _, response, _ in parts)
    response = prompts.prompt_ids.new_full((len(prompts), steps), language_model.pad_id)
    log_probs, mask = torch.zeros(response.shape, device=response.device), torch.zeros_like(response)
    has_eos = torch.zeros(len(prompts), dtype=torch.bool, device=response.device)
    for rows, ids, logits in parts:
        for row, row_ids in zip(rows.tolist(), ids.tolist(), strict=True):
            end = ends.first_end(row_ids, row)
            has_eos[row], mask[row, : len(row_ids) if end is None else end + 1] = end is not None, 1
        width = ids.shape[1]
        response[rows, :width] = ids
        log_probs[rows, :width] = log_probs_of(logits.float() / temperature, ids) * mask[rows, :width]
    return Rollout(
        prompts=prompts.prompts, prompt_ids=prompts.prompt_ids, prompt_mask=prompts.prompt_mask, group=prompts.group,
        responses=ends.decode(response, mask), response_ids=response.masked_fill(mask == 0, language_model.pad_id),
        response_mask=mask, has_eos=has_eos, sampled_log_probs=log_probs, temperature=temperature,
    )  # fmt: skip


def _groups(language_model: LanguageModel, prompts: Prompts) -> list[Tensor]:
    """Rows that may be generated together: all, or those of equal length if padding changes the state."""
    lengths = prompts.prompt_mask.sum(1)
    if reads_padding(language_model):
        return [torch.arange(len(prompts), device=lengths.device)]
    return [(lengths == length).nonzero().squeeze(1) for length in lengths.unique()]


def _generate(
    language_model: LanguageModel, all_prompts: Prompts, rows: Tensor, settings: Any, ends: ResponseEnds
) -> tuple[Tensor, Tensor]:
    """Responses [b, T] of these rows and their logits [b, T, V], in one call of generate."""
    from transformers import StoppingCriteriaList

    prompts = all_prompts.select(rows)
    device, prefix = prompts.prompt_ids.device, language_model.decoder_prefix
    columns = slice(None) if prefix is not None else slice(int((prompts.prompt_mask == 0).sum(1).min()), None)
    before, decoder_inputs = prompts.prompt_ids[:, columns], {}
    if prefix is not None:
        decoder_inputs["decoder_input_ids"] = before.new_tensor(prefix).repeat(len(prompts), 1)
        settings.decoder_start_token_id = prefix[0]
    start = decoder_inputs.get("decoder_input_ids", before).shape[1]

    def has_ended(ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return ends.has_ended(ids[:, start:], rows)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(seeds_of(prompts)[0]))  # generate samples all rows with torch's generator
        output = language_model.model.generate(
            input_ids=before, attention_mask=prompts.prompt_mask[:, columns], generation_config=settings, **decoder_inputs,
            return_dict_in_generate=True, output_logits=True, stopping_criteria=StoppingCriteriaList([has_ended] if ends.strings else []),
        )  # fmt: skip
    return output.sequences[:, start:], torch.stack(output.logits, dim=1)
