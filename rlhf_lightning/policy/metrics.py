"""What is shown of an update: the objective, and what tells that a policy is being pulled to where its scorer errs: the shape of its
responses, and scores that nothing is trained on.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf_lightning.flow import Rollout, ScoredRollout
from rlhf_lightning.rollout.scoring import Scorer, agreed_scores
from rlhf_lightning.tensors import kl_estimate
from rlhf_lightning.training.distributed import all_reduce_sum


@torch.no_grad()
def objective_metrics(scored: ScoredRollout) -> dict[str, Tensor]:
    """The objective under TRL's names: KL and entropy summed over a response, scores before and rewards after shaping."""
    mask = scored.response_mask
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
    }


@torch.no_grad()
def response_metrics(scored: ScoredRollout) -> dict[str, Tensor]:
    """How responses look, as scalars; TRL's names where it has them (completions/*: its GRPO trainer).

    val/eos_rate and completions/clipped_ratio: the share that ended by itself, and that was cut at the limit.
    completions/mean_terminated_length: tokens of those that ended, 0 where none did. objective/scores_std: over the responses.
    val/distinct_1, val/distinct_2: distinct tokens and token pairs of all responses together, over their number (Li et al. 2016).
    val/repetition_3: the share of token triples that stood in the same response before (Welleck et al. 2020).
    val/equal_responses: the share of responses whose text another one has too.
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
        # From the lowest on, so that equal scores have a deviation of exactly 0, which their mean's rounding would hide.
        "objective/scores_std": (scores - scores.min()).std() if len(scores) > 1 else torch.zeros(()),
        "val/distinct_1": distinct_1,
        "val/distinct_2": distinct_2,
        "val/repetition_3": 1 - distinct_triples,
        "val/equal_responses": torch.tensor(sum(n for n in counts.values() if n > 1) / max(1, len(scored))),
    }


def variety(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct tokens and token pairs of all rows together, and distinct triples of each row, over the number of each; 1 where there are
    none. ids and mask are [B, T]."""
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)[mask]
    tokens, count = _numbered(ids[mask]), len(rows)
    # Numbered anew at each length, so that products of three vocabularies don't overflow.
    pairs = _numbered(tokens[:-1] * count + tokens[1:])
    triples = (rows[2:] * count + pairs[:-1]) * count + tokens[2:]
    return _share_distinct(tokens), _share_distinct(pairs[rows[1:] == rows[:-1]]), _share_distinct(triples[rows[2:] == rows[:-2]])


def held_out_metrics(scorers: Mapping[str, Scorer], rollout: Rollout) -> dict[str, Tensor]:
    """The mean of each scorer's scores over the responses of all processes, by its metric's name. Nothing is trained on them.

    Responses that a scorer can't score don't count; where it can score none, its metric is missing.
    """
    found: dict[str, Tensor] = {}
    for name, scorer in scorers.items():
        scores = agreed_scores(scorer, rollout).to(rollout.prompt_ids.device)
        known = scores.isfinite()
        total, count = all_reduce_sum(torch.stack([scores.nan_to_num().sum(), known.sum()])).unbind()
        if count:
            found[name] = total / count
    return found


def _numbered(values: Tensor) -> Tensor:
    numbers: Tensor = values.unique(return_inverse=True)[1]
    return numbers


def _share_distinct(values: Tensor) -> Tensor:
    return torch.tensor(len(values.unique()) / len(values) if len(values) else 1.0)
