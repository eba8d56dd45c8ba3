"""Sampling with a KV cache and log-probabilities in the same pass."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler._decoder import decoder_of
from rlhf_lightning.rollout.sampler._responses import ResponseEnds, StopStrings, uniform_draws


@register("rollout_sampler", "native")
@torch.no_grad()
def native(
    language_model: LanguageModel,
    prompts: Prompts,
    *,
    max_new_tokens: PositiveInt = 48,
    temperature: NonNegativeFloat = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    stop_strings: StopStrings = (),
) -> Rollout:
    """Sample one response per prompt with a KV cache; finished rows leave the batch.

    Prompts run without padding if the model supports it (model.packing), else with transformers' cache and masks.

    Details: docs/ppo_details.md#truncation-behind-the-eos, docs/conventions.md#log-probability-of-inf.

    Args:
        language_model: the policy; put it in eval mode for exact log-probabilities.
        prompts: B left-padded prompts; each response has its seed and doesn't depend on the others.
        max_new_tokens: T; a response that reaches it without an EOS is truncated: has_eos is False.
        temperature: the logits are divided by it; 0 is greedy. Log-probabilities are those of the tempered distribution.
        top_p: sample from the smallest set of tokens with this probability (Holtzman et al. 2020). Log-probabilities stay those of the
            full distribution, as in TRL: below 1 they are not exactly the sampler's.
        stop_strings: texts that end a response, as an end-of-text does: its ids extend to the token that completes the first of them, its
            text ends before it. A special token of the model may be one.
    """
    batch, device = len(prompts), prompts.prompt_ids.device
    response = torch.full((batch, max_new_tokens), language_model.pad_id, dtype=torch.long, device=device)
    log_probs = torch.zeros(batch, max_new_tokens, device=device)
    response_mask = torch.zeros(batch, max_new_tokens, dtype=torch.long, device=device)
    has_eos = torch.zeros(batch, dtype=torch.bool, device=device)
    ends = ResponseEnds(language_model, prompts, stop_strings)

    draws = uniform_draws(prompts, max_new_tokens)
    alive = torch.arange(batch, device=device)
    decoder = decoder_of(language_model, prompts, max_new_tokens)
    logits = decoder.start()
    for step in range(max_new_tokens):
        token, log_prob = draw(logits, draws[alive, step], temperature, top_p)
        response[alive, step], log_probs[alive, step], response_mask[alive, step] = token, log_prob, 1
        ended = ends.has_ended(response[alive, : step + 1], alive)
        has_eos[alive] = ended
        if step + 1 == max_new_tokens or bool(ended.all()):
            break
        if bool(ended.any()):
            stay = decoder.keep(~ended)
            alive, token = alive[stay], token[stay]
        logits = decoder.step(token)

    return _to_rollout(ends, response, response_mask, has_eos, log_probs, temperature or 1.0)


def _to_rollout(
    ends: ResponseEnds, response: Tensor, response_mask: Tensor, has_eos: Tensor, log_probs: Tensor, temperature: float
) -> Rollout:
    """The rollout of responses [B, T], cut to the longest."""
    prompts = ends.prompts
    longest = int(response_mask.sum(1).max())
    response, response_mask = response[:, :longest], response_mask[:, :longest]
    return Rollout(
        prompts=prompts.prompts, prompt_ids=prompts.prompt_ids, prompt_mask=prompts.prompt_mask, group=prompts.group,
        responses=ends.decode(response, response_mask), response_ids=response, response_mask=response_mask,
        has_eos=has_eos, sampled_log_probs=log_probs[:, :longest], temperature=temperature,
    )  # fmt: skip


def draw(logits: Tensor, draws: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Sample a token per row of logits [B, V] with uniform numbers [B]; returns its log-probability too."""
    greedy = temperature == 0
    distribution = (logits.float() / (1.0 if greedy else temperature)).log_softmax(-1)
    token = distribution.argmax(-1) if greedy else _inverse_cdf(distribution.exp(), draws, top_p)
    return token, distribution.gather(-1, token[:, None])[:, 0]


def _inverse_cdf(probabilities: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """Tokens [B] by the inverse cumulative distribution at a uniform number per row.

    In double precision. On a CPU a tenth of the cost of a random number for each entry of the vocabulary.
    """
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    target = draws[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=cumulative.shape[1] - 1)
