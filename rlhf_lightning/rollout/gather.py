"""Rollouts of several processes: the responses and their order are those of a single process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch.nn.functional import pad

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompts, Rollout, ScoredRollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.training.distributed import all_gather

R = TypeVar("R", bound=Rollout)
PADDED_LEFT = ("prompt_ids", "prompt_mask")


def expand_prompts(prompts: Prompts, responses: int, generator: torch.Generator, rank: int, world: int) -> Prompts:
    """Each prompt `responses` times, each row with its seed.

    Args:
        prompts: this process's part of a batch: every `world`-th prompt, starting at the `rank`-th.
        generator: in the same state on every process; draws the seeds of all of them.
    """
    seeds = torch.randint(2**62, (len(prompts), world, responses), generator=generator)[:, rank].flatten()
    return dataclasses.replace(prompts.repeat(responses), seeds=seeds)


def gather_rollouts(scored: ScoredRollout, rank: int, world: int) -> ScoredRollout:
    """Gather the rows of all processes on each of them.

    Group means, whitening, running statistics and token weights then cover the complete batch. The traffic, a few numbers per token, is
    small compared with the gradients of one update.

    Returns:
        Rows in the order of a single process; `group` counts the prompts of the complete batch.
    """
    if world == 1:
        return scored
    local = dataclasses.replace(scored.to("cpu"), group=scored.group.cpu() * world + rank)
    gathered = concat_rollouts(all_gather(local, world))
    return gathered.select(gathered.group.argsort(stable=True)).to(scored.group.device)


def concat_rollouts(parts: Sequence[R]) -> R:
    """Concatenate records, padded to a common width; scalars (temperature, kl_coef) are the first one's."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        pad_left = field.name in PADDED_LEFT
        if isinstance(values[0], dict):
            columns[field.name] = {key: _concat([value[key] for value in values], pad_left) for key in values[0]}
        else:
            columns[field.name] = _concat(values, pad_left)
    return type(parts[0])(**columns)


def _concat(values: Sequence[Any], pad_left: bool) -> Any:
    """Concatenate tensors, padded to a common width, or lists; of other values the first."""
    if isinstance(values[0], torch.Tensor):
        width = max(value.shape[-1] for value in values)
        short = [width - value.shape[-1] if value.dim() > 1 else 0 for value in values]
        return torch.cat([pad(value, (missing, 0) if pad_left else (0, missing)) for value, missing in zip(values, short, strict=True)])
    return [item for value in values for item in value] if isinstance(values[0], list) else values[0]


def drop_unscored(scored: ScoredRollout, max_fraction: float, scorer: str) -> tuple[ScoredRollout, str]:
    """Keep the rows with a finite score, and a finite baseline score if there are baselines.

    A dropped row is in no gradient, baseline, group mean, whitening or running statistic.

    Args:
        scored: of all processes: each of them drops the same rows.
        max_fraction: of rows that may be dropped; one is always allowed.
        scorer: its name, for messages.

    Returns:
        The other rows, and a sentence on the dropped ones; empty if there are none.

    Raises:
        UserError: a larger fraction.
    """
    is_scored = scored.scores.isfinite()
    if scored.baseline_scores is not None:
        is_scored &= scored.baseline_scores.isfinite()
    unscored = (~is_scored).nonzero().flatten().tolist()
    if not unscored:
        return scored, ""
    example = scored.responses[unscored[0]][:80]
    note = f"scorer {scorer} couldn't score {len(unscored)} of {len(scored)} responses (NaN or None), as {example!r}"
    if len(unscored) == len(scored) or len(unscored) > max(1.0, max_fraction * len(scored)):
        raise UserError(f"{note}: more than ppo.max_unscorable={max_fraction:g} of an update; fix the scorer, or raise that limit")
    return scored.select(torch.nonzero(is_scored).flatten()), f"{note}; they are left out (objective/unscorable)"


class Sampler(Protocol):
    """Samples one response for each prompt."""

    def __call__(self, language_model: LanguageModel, prompts: Prompts, /) -> Rollout: ...


def sample_responses(sampler: Sampler, language_model: LanguageModel, prompts: Prompts) -> Rollout:
    """Sample one response for each prompt; the rollout has the columns of the prompts."""
    return dataclasses.replace(sampler(language_model, prompts), columns=prompts.columns)
