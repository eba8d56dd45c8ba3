"""The package's own sampler: KV cache, finished rows leave the batch, log-probabilities come with the tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import log_probs_of


@register("rollout_sampler", "native")
@torch.no_grad()
def native(
    language_model: LanguageModel,
    prompts: Prompts,
    *,
    max_new_tokens: PositiveInt = 48,
    temperature: NonNegativeFloat = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> Rollout:
    """Draw one response per prompt with a KV cache; finished rows leave the batch.

    Left-padded prompts get position ids that count from their first real token: GPT-2 reads absolute positions, so padding would
    shift it; rotary models only see differences and hide the error.

    Args:
        language_model: the policy; used as it is, in the mode it is in (put it in eval mode for exact log-probabilities).
        prompts: B left-padded prompts.
        max_new_tokens: T; a response that reaches it without an EOS is cut and has_eos is False.
        temperature: of the softmax; 0 takes the likeliest token. Log-probabilities are those of the tempered distribution.
        top_p: draw from the smallest set of tokens with this probability (Holtzman et al. 2020). Log-probabilities stay those of the
            full distribution, as in TRL: below 1 they are not exactly the sampler's.
    """
    ids, mask = prompts.prompt_ids, prompts.prompt_mask
    batch, device = len(prompts), ids.device
    response = torch.full((batch, max_new_tokens), language_model.pad_id, dtype=torch.long, device=device)
    log_probs = torch.zeros(batch, max_new_tokens, device=device)
    response_mask = torch.zeros(batch, max_new_tokens, dtype=torch.long, device=device)
    has_eos = torch.zeros(batch, dtype=torch.bool, device=device)
    eos = torch.tensor(language_model.eos_ids, device=device)

    alive = torch.arange(batch, device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    feed, cache = ids, None
    for step in range(max_new_tokens):
        output = language_model.model(
            input_ids=feed, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        token, log_prob = _draw(output.logits[:, -1], temperature, top_p)
        response[alive, step], log_probs[alive, step], response_mask[alive, step] = token, log_prob, 1
        ended = torch.isin(token, eos)
        has_eos[alive] = ended
        going = ~ended
        if not going.any():
            break
        cache = output.past_key_values
        if not going.all():
            cache.batch_select_indices(going.nonzero().squeeze(1))
        alive, feed = alive[going], token[going, None]
        mask = torch.cat([mask[going], mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[going, -1:] + 1

    longest = int(response_mask.sum(1).max())
    response, response_mask = response[:, :longest], response_mask[:, :longest]
    return Rollout(
        prompts=prompts.prompts, prompt_ids=ids, prompt_mask=prompts.prompt_mask, group=prompts.group,
        responses=language_model.decode(response, response_mask), response_ids=response, response_mask=response_mask,
        has_eos=has_eos, sampled_log_probs=log_probs[:, :longest], temperature=temperature or 1.0,
    )  # fmt: skip


def _draw(logits: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """One token per row of [B, V] logits and its log-probability at the temperature."""
    logits = logits.float()
    if temperature == 0:
        token = logits.argmax(-1)
        return token, log_probs_of(logits, token)
    logits = logits / temperature
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))
    token = torch.multinomial(probabilities, 1).squeeze(1)
    return token, log_probs_of(logits, token)
