"""Sampling by transformers' own generate: slower than `native`, and what others use."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler._draws import seeds_of
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
) -> Rollout:
    """Draw one response per prompt with transformers' generate.

    The folder's own generation config is overruled wherever it would change the distribution (top_k, penalties), so that the
    log-probabilities are those of the tokens drawn. Arguments as in `native`, without temperature 0.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=True, temperature=temperature, top_p=top_p, top_k=0, max_new_tokens=max_new_tokens,
        eos_token_id=language_model.eos_ids, pad_token_id=language_model.pad_id,
    )  # fmt: skip
    before, prefix = prompts.prompt_ids, language_model.decoder_prefix
    begin = {}
    if prefix is not None:
        before = before.new_tensor(prefix).repeat(len(prompts), 1)
        begin, settings.decoder_start_token_id = {"decoder_input_ids": before}, prefix[0]
    model, own = language_model.model, language_model.model.generation_config
    model.generation_config = GenerationConfig()  # generate fills whatever `settings` leaves open from here
    device = prompts.prompt_ids.device
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(seeds_of(prompts)[0]))  # generate draws all rows from torch's stream
            output = model.generate(
                input_ids=prompts.prompt_ids, attention_mask=prompts.prompt_mask, generation_config=settings, **begin,
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
    finally:
        model.generation_config = own
    response = output.sequences[:, before.shape[1] :]
    is_eos = torch.isin(response, torch.tensor(language_model.eos_ids, device=response.device))
    ended_before = is_eos.long().cumsum(1) - is_eos.long() > 0
    mask = (~ended_before).long()
    log_probs = log_probs_of(torch.stack(output.logits, dim=1).float() / temperature, response) * mask
    return Rollout(
        prompts=prompts.prompts, prompt_ids=prompts.prompt_ids, prompt_mask=prompts.prompt_mask, group=prompts.group,
        responses=language_model.decode(response, mask), response_ids=response.masked_fill(mask == 0, language_model.pad_id),
        response_mask=mask, has_eos=is_eos.any(1), sampled_log_probs=log_probs, temperature=temperature,
    )  # fmt: skip
