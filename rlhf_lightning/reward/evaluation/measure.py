"""Measurement of reward models on feedback, and agreement between several."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judgements, PromptResponse
from rlhf_lightning.flow import Prompt
from rlhf_lightning.reward.evaluation.held_out import HeldOut
from rlhf_lightning.reward.evaluation.outcomes import collect, concat, held_out_metrics
from rlhf_lightning.statistics.ranks import kendall_tau_b, rank_correlation
from rlhf_lightning.training.distributed import all_gather, global_rank, world_size

CHUNK = 4_096
"""Judgements whose texts are scored at a time."""
RESCORED = 128
"""Texts that are scored a second time in other batches."""
SAMPLED_TEXTS = 2_000
"""Approximate number of texts on which models are compared."""


class TextScorer(Protocol):
    """A reward model; with an attribute `deviation`, its scores are log-odds divided by it."""

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = ...) -> Tensor:
        """Scores [U] of responses to prompts."""
        ...


@dataclass(frozen=True)
class RewardAgreement:
    """Agreement of two reward models on the same texts.

    Attributes:
        spearman, kendall: rank correlations (tau-b) of their scores over all texts; None if a model's scores are constant.
        same_order: share of pairs of responses to one prompt that they order alike; None without such pairs.
    """

    first: str
    second: str
    spearman: float | None
    kendall: float | None
    same_order: float | None
    texts: int


@torch.no_grad()
def measure_held_out(
    model: TextScorer, judged: Judgements, *, truth: Callable[[Prompt, str], float] | None = None, batch_size: int = 64
) -> HeldOut:
    """Compute a reward model's metrics on feedback.

    Collective: each process scores its part of the prompts, and all get the same result.

    Args:
        truth: the utility of a response, if it is known.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    world = world_size()
    rank = global_rank() if world > 1 else 0
    mine = judged.select(judged.rows["prompt"] % world == rank)
    parts = []
    for part in split_by_prompt(mine, CHUNK):
        texts = part.texts()
        scores = log_odds(model, texts, batch_size).tolist()
        parts.append(collect(part, dict(zip(texts, scores, strict=True)), truth, judged.by_text))
    outcomes = concat(parts)
    outcomes.batch_change = batch_change(model, mine[:RESCORED].texts()[:RESCORED], batch_size)
    return held_out_metrics(concat(all_gather(outcomes, world)), truth is not None)


def split_by_prompt(judged: Judgements, size: int) -> Iterator[Judgements]:
    """Split judgements into parts of about `size`, without splitting a prompt."""
    judged = judged.select(np.argsort(judged.rows["prompt"], kind="stable"))
    prompts = judged.rows["prompt"]
    cuts = [0]
    for start in [*(np.flatnonzero(prompts[1:] != prompts[:-1]) + 1).tolist(), len(judged)]:
        if start - cuts[-1] >= size or start == len(judged) > cuts[-1]:
            cuts.append(start)
    for start, end in itertools.pairwise(cuts):
        yield judged[start:end]


def log_odds(model: TextScorer, texts: Sequence[PromptResponse], batch_size: int = 64) -> Tensor:
    """Scores [U], float64, in the losses' unit: their differences are log-odds."""
    scores = model.score_texts([prompt for prompt, _ in texts], [response for _, response in texts], batch_size)
    return scores.double() * float(getattr(model, "deviation", 1.0))


def batch_change(model: TextScorer, texts: Sequence[PromptResponse], batch_size: int = 64) -> float:
    """The largest change of a text's score when it is batched with other texts.

    The difference of a pair's scores changes by up to twice that.
    """
    first, second = (
        model.score_texts([prompt for prompt, _ in row], [response for _, response in row], size)
        for row, size in ((texts, batch_size), (texts[::-1], 3))
    )
    return float((first - second.flip(0)).abs().max()) if len(texts) else 0.0


def sample_texts(judged: Judgements, seed: int = 0) -> list[PromptResponse]:
    """All texts of randomly chosen prompts, up to about SAMPLED_TEXTS."""
    prompts = np.unique(judged.rows["prompt"])
    chosen = np.random.default_rng(seed).permutation(prompts)[:SAMPLED_TEXTS]
    texts: list[PromptResponse] = []
    for part in split_by_prompt(judged.select(np.isin(judged.rows["prompt"], chosen)), 1):
        texts += part.texts()
        if len(texts) >= SAMPLED_TEXTS:
            break
    return texts[: 2 * SAMPLED_TEXTS]


def reward_agreements(scores: Mapping[str, Tensor], texts: Sequence[PromptResponse]) -> list[RewardAgreement]:
    """Agreement of each pair of reward models.

    Args:
        scores: [U] of each model on the same texts, by the model's name.
    """
    columns = {name: np.asarray(score, dtype=np.float64) for name, score in scores.items()}
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in texts))}
    prompts = np.array([number[prompt] for prompt, _ in texts])
    i, j = np.triu_indices(len(texts), 1)
    same_prompt = prompts[i] == prompts[j]
    i, j = i[same_prompt], j[same_prompt]
    agreements = []
    for (first, a), (second, b) in itertools.combinations(columns.items(), 2):
        same = np.sign(a[i] - a[j]) == np.sign(b[i] - b[j])
        share = float(same.mean()) if len(same) else None
        agreements.append(RewardAgreement(first, second, rank_correlation(a, b), kendall_tau_b(a, b), share, len(texts)))
    return agreements
