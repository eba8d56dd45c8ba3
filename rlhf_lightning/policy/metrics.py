"""Metrics of an update: the objective, and signs of reward hacking in responses and held-out scores.

Shapes: B responses, T response tokens.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout, ScoredRollout
from rlhf_lightning.rollout.scoring import Scorer, scores_on_all_ranks
from rlhf_lightning.tensors import kl_estimate
from rlhf_lightning.training.distributed import all_reduce_sum

HELD_OUT_SCORES = "objective/held_out_scores"
"""Metric of a scorer that watches for over-optimisation."""


@torch.no_grad()
def objective_metrics(scored: ScoredRollout) -> dict[str, Tensor]:
    """The objective under TRL's names.

    KL and entropy are summed over a response; scores are before, rewards after shaping. Of several scorers objective/scores/NAME is
    the mean over the responses that it scores, before its weight.
    """
    mask = scored.response_mask
    components = {name: scores.nanmean() for name, scores in scored.component_scores.items()}
    kl = kl_estimate(scored.old_log_probs, scored.ref_log_probs).mul(mask).sum(1).mean()
    rlhf_reward = scored.rewards.sum(1).mean()
    lengths = mask.sum(1).float()
    return {
        "objective/kl": kl,
        "objective/entropy": scored.entropy.mul(mask).sum(1).mean(),
        "objective/scores": scored.scores.float().mean(),
        "objective/rlhf_reward": rlhf_reward,
        "objective/non_score_reward": rlhf_reward - scored.scores.float().mean(),
        "objective/kl_coef": torch.tensor(scored.kl_coef),
        "val/num_eos_tokens": scored.has_eos.float().sum(),
        "val/response_length": lengths.mean(),
    } | {f"objective/scores/{name}": mean for name, mean in components.items() if mean.isfinite()}


@torch.no_grad()
def response_metrics(scored: ScoredRollout) -> dict[str, Tensor]:
    """Statistics of the responses under TRL's names where it has them (completions/*: its GRPO trainer).

    val/eos_rate and completions/clipped_ratio: the fraction that ended with EOS, and that was truncated.
    completions/mean_terminated_length: tokens of those that ended, 0 if none did. objective/scores_std: over the responses.
    val/distinct_1, val/distinct_2: distinct tokens and token pairs of all responses together, over their number (Li et al. 2016).
    val/repetition_3: the fraction of token triples that occur earlier in the same response (Welleck et al. 2020).
    val/equal_responses: the fraction of responses whose text occurs more than once.
    """
    mask, ended = scored.response_mask.bool(), scored.has_eos.float()
    lengths = mask.sum(1).float()
    counts = Counter(scored.responses)
    scores = scored.scores.float()
    distinct_1, distinct_2, distinct_triples = variety(scored.response_ids, mask)
    return {
        "val/eos_rate": ended.mean(),
        "completions/clipped_ratio": 1 - ended.mean(),
        "completions/mean_terminated_length": (lengths * ended).sum() / ended.sum().clamp(min=1),
        # Above the minimum: equal scores have a deviation of exactly 0 despite rounding.
        "objective/scores_std": (scores - scores.min()).std() if len(scores) > 1 else torch.zeros(()),
        "val/distinct_1": distinct_1,
        "val/distinct_2": distinct_2,
        "val/repetition_3": 1 - distinct_triples,
        "val/equal_responses": torch.tensor(sum(n for n in counts.values() if n > 1) / max(1, len(scored))),
    }


def variety(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fractions of distinct tokens and pairs over all rows, and of distinct triples within rows.

    1 without any. ids and mask are [B, T].
    """
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)[mask]
    tokens, count = _dense_ids(ids[mask]), len(rows)
    # Renumbered at each length: products of three vocabularies would overflow.
    pairs = _dense_ids(tokens[:-1] * count + tokens[1:])
    triples = (rows[2:] * count + pairs[:-1]) * count + tokens[2:]
    return _distinct_fraction(tokens), _distinct_fraction(pairs[rows[1:] == rows[:-1]]), _distinct_fraction(triples[rows[2:] == rows[:-2]])


def held_out_metrics(scorers: Mapping[str, Scorer], rollout: Rollout, scores: Tensor) -> dict[str, Tensor]:
    """Mean score of each scorer over the responses of all processes, by metric, and NAME_correlation.

    That is the correlation of the scorer's scores with those that are trained on, within the responses to a prompt (`within_prompts`).
    Responses without a score don't count; a scorer that scores none has no metric.

    Args:
        scores: [B] of this process's responses, that the policy learns from; NaN for none.
    """
    metrics: dict[str, Tensor] = {}
    for name, scorer in scorers.items():
        held_out = scores_on_all_ranks(scorer, rollout).total.to(rollout.prompt_ids.device)
        is_scored = held_out.isfinite()
        total, count = all_reduce_sum(torch.stack([held_out.nan_to_num().sum(), is_scored.sum()])).unbind()
        if count:
            metrics[name] = total / count
        rows = is_scored & scores.isfinite()
        x, y = (within_prompts(values[rows].double(), rollout.group[rows]) for values in (scores, held_out))
        xx, xy, yy = all_reduce_sum(torch.stack([(x * x).sum(), (x * y).sum(), (y * y).sum()])).unbind()
        if xx * yy > 0:
            metrics[f"{name}_correlation"] = (xy / (xx * yy).sqrt()).float()
    return metrics


def within_prompts(values: Tensor, group: Tensor) -> Tensor:
    """Values [B] less their prompt's mean; less the mean of all where no prompt has two responses."""
    counts = torch.bincount(group)
    if not len(values) or counts.max() < 2:
        return values - values.mean()
    return values - (torch.bincount(group, values) / counts.clamp(min=1))[group]


def _dense_ids(values: Tensor) -> Tensor:
    numbers: Tensor = values.unique(return_inverse=True)[1]
    return numbers


def _distinct_fraction(values: Tensor) -> Tensor:
    return torch.tensor(len(values.unique()) / len(values) if len(values) else 1.0)


S = TypeVar("S", bound=ScoredRollout)
MAX_ABS = 1e15
"""Squares of larger numbers, summed over the tokens of a batch, come near float32's 3.4e38: a variance would be infinite, and a number
divided by it a silent 0."""
CHECKED = ("rewards", "values", "advantages", "returns")


def with_checked_ranges(method: Callable[[Any, ScoredRollout], S]) -> Callable[[Any, ScoredRollout], S]:
    """Decorate a method of ExperienceMaker: check the value ranges of the record that it returns."""

    @functools.wraps(method)
    def checking(maker: Any, scored: ScoredRollout) -> S:
        record = method(maker, scored)
        check_value_ranges(record, maker.update, maker.describe_weights)
        return record

    return checking


def value_ranges(record: ScoredRollout, log_probs: Tensor | None = None) -> dict[str, list[float]]:
    """[min, max] over the response tokens of scores, rewards, values, advantages, returns and log-ratios.

    The log-ratios are those of the old policy to the reference and, given `log_probs` [B, T], of the new policy to the old one. A NaN is
    both minimum and maximum.
    """
    inside = record.response_mask.bool()
    values = {name: value[inside] for name in CHECKED if isinstance(value := getattr(record, name, None), Tensor)}
    values["scores"] = record.scores
    values["log_ratio_to_reference"] = (record.old_log_probs - record.ref_log_probs)[inside]
    if log_probs is not None:
        values["log_ratio_to_old"] = (log_probs - record.old_log_probs)[inside]
    return {name: [value.min().item(), value.max().item()] for name, value in values.items() if value.numel()}


def check_value_ranges(record: ScoredRollout, update: int, describe_weights: Callable[[], str] = str) -> None:
    """Check that rewards, values, advantages and returns are finite and at most MAX_ABS.

    Args:
        describe_weights: makes a clause on another possible cause.

    Raises:
        UserError: naming the response and its score.
    """
    inside = record.response_mask.bool()
    for name in CHECKED:
        values = getattr(record, name, None)
        if values is None:
            continue
        out_of_range = (inside & ~(values.abs() <= MAX_ABS)).nonzero()
        if len(out_of_range):
            row, token = out_of_range[0].tolist()
            raise UserError(
                f"update {update}: {name} of {len(out_of_range)} tokens aren't finite or are beyond {MAX_ABS:g}, the first "
                f"{values[row, token]:g} in the response {record.responses[row][:80]!r} with the score {record.scores[row]:g} and the "
                f"log-probabilities {record.old_log_probs[row, token]:g} (policy) and {record.ref_log_probs[row, token]:g} "
                f"(reference){describe_weights()}; look at the scores of rollout_scorer, clip them "
                "(rollout_shaping=[clip_score,...]), or lower ppo.learning_rate"
            )
