from __future__ import annotations

import dataclasses
from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scoring import weighted_sum
from rlhf_lightning.tensors import score_on_last_token


def check_first(choices: Any) -> None:
    """Require the first place among the shapings, and no greedy baseline. Raises ConfigError."""
    shapings = [component.name for component in choices.components_of("rollout_shaping")]
    if shapings[0] != "gdpo":
        others = ",".join(name for name in shapings if name != "gdpo")
        raise ConfigError(f"rollout_shaping.gdpo begins from the scores of each scorer: write rollout_shaping=[gdpo,{others}]")
    if "greedy" in choices.component_of("advantage").needs:
        raise ConfigError("rollout_shaping=[gdpo] leaves no baseline for advantage=remax: choose another advantage")


@register("rollout_shaping", "gdpo", needs=["scores"], check=check_first)
def gdpo(scored: ScoredRollout, *, eps: PositiveFloat = 1e-4, normalise_batch: bool = True) -> ScoredRollout:
    """Normalise the scores of each scorer within their prompt's group, then sum them; put it first.

    GDPO ("Group reward-Decoupled Normalization", Liu et al. 2026): a scorer of small spread counts as much as one of large spread, by its
    weight alone. Rewards [B, T] are on the last token; the scores [B] stay the weighted sum, for the log. Unbiased deviations. With
    advantage=dr_grpo the advantages are those of TRL's multi_objective_aggregation="normalize_then_sum"; advantage=grpo would normalise
    once more.

    Args:
        scored: component_scores, group [B], response_mask [B, T]. NaN counts neither in the group nor in the sum.
        eps: added to each deviation (TRL).
        normalise_batch: normalise the sums over the batch, as the paper's and TRL's last step.
    """
    components, weights = scored.component_scores or {"score": scored.scores}, scored.score_weights or {"score": 1.0}
    normalised = {name: normalise_in_group(scores, scored.group, eps) for name, scores in components.items()}
    total = weighted_sum(normalised, weights).nan_to_num()
    if normalise_batch and len(total) > 1:
        total = (total - total.mean()) / (total.std() + eps)
    return dataclasses.replace(scored, rewards=score_on_last_token(total, scored.response_mask))


def normalise_in_group(scores: Tensor, group: Tensor, eps: float) -> Tensor:
    """Compute (score - mean) / (deviation + eps) within each group of scores [B]; a NaN doesn't count."""
    ids, index = torch.unique(group, return_inverse=True)
    valid = ~scores.isnan()
    filled = scores.nan_to_num()

    def group_total(values: Tensor) -> Tensor:
        return values.new_zeros(len(ids)).index_add(0, index, values * valid)[index]

    count = group_total(torch.ones_like(filled))
    # From the lowest score: equal ones are exactly 0.
    lowest = torch.full_like(filled[: len(ids)], torch.inf).scatter_reduce(0, index, scores.nan_to_num(torch.inf), "amin")[index]
    shifted = torch.where(valid, filled - lowest, torch.zeros_like(filled))
    centred = shifted - group_total(shifted) / count.clamp(min=1)
    deviation = (group_total(centred**2) / (count - 1).clamp(min=1)).sqrt()
    return torch.where(valid, centred / (deviation + eps), scores)
