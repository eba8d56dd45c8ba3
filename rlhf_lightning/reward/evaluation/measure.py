"""Measures reward models on feedback, and how far several agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judgements, Text
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.flow import Prompt
from rlhf_lightning.reward.evaluation.held_out import HeldOut, HeldOutMetric
from rlhf_lightning.statistics.ranks import kendall_tau_b, rank_correlation

AT_A_TIME = 4_096
"""Judgements whose texts are scored together."""
RESCORED = 128
"""Texts that are scored twice."""
TEXTS_COMPARED = 2_000
"""Texts, about, on which models are held to each other: Kendall's tau takes the square of them."""


class TextScorer(Protocol):
    """A reward model. Where it has a `deviation`, its scores are log-odds divided by that."""

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = ...) -> Tensor:
        """Scores [U] of responses to prompts."""
        ...


@dataclass(frozen=True)
class Agreement:
    """How far two reward models agree on the same texts.

    Attributes:
        spearman, kendall: rank correlations (tau-b) of their scores over all texts; None where a model says the same of all.
        same_order: how often they put two responses to one prompt in the same order; None where no prompt has two.
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
    """The metrics of a reward model on feedback. Under several processes each scores its share of the prompts; all get the same record.

    Args:
        truth: what a response is worth, where that is known.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    rank, world, device = _process()
    metric = HeldOutMetric(sorted({data_set(record.feedback) for record in judged}), truth is not None, judged.by_text).to(device)
    mine = judged.select(judged.rows["prompt"] % world == rank)
    metric.update([], {})  # a process without a prompt takes part, too
    for part in parts_of(mine, AT_A_TIME):
        texts = part.texts()
        scores = log_odds(model, texts, batch_size).tolist()
        metric.update(part, dict(zip(texts, scores, strict=True)), truth)
    metric.batch_change.fill_(batch_change(model, mine[:RESCORED].texts()[:RESCORED], batch_size))
    return metric.held_out()


def parts_of(judged: Judgements, size: int) -> Iterator[Judgements]:
    """The judgements in parts of about `size`, those on one prompt together in one part."""
    judged = judged.select(np.argsort(judged.rows["prompt"], kind="stable"))
    prompts = judged.rows["prompt"]
    cuts = [0]
    for start in [*(np.flatnonzero(prompts[1:] != prompts[:-1]) + 1).tolist(), len(judged)]:
        if start - cuts[-1] >= size or start == len(judged) > cuts[-1]:
            cuts.append(start)
    for start, end in itertools.pairwise(cuts):
        yield judged[start:end]


def log_odds(model: TextScorer, texts: Sequence[Text], batch_size: int = 64) -> Tensor:
    """Scores [U], float64, in the units in which losses saw them: differences are log-odds; the mean is that of the normalised ones."""
    scores = model.score_texts([prompt for prompt, _ in texts], [response for _, response in texts], batch_size)
    return scores.double() * float(getattr(model, "deviation", 1.0))


def batch_change(model: TextScorer, texts: Sequence[Text], batch_size: int = 64) -> float:
    """The largest difference between a text's scores among the others and in small batches of other company. Then the difference of a
    pair changes its sign when its sides are swapped, to twice that."""
    once, again = (
        model.score_texts([prompt for prompt, _ in row], [response for _, response in row], size)
        for row, size in ((texts, batch_size), (texts[::-1], 3))
    )
    return float((once - again.flip(0)).abs().max()) if len(texts) else 0.0


def texts_compared(judged: Judgements, seed: int = 0) -> list[Text]:
    """All texts of some prompts, drawn until there are TEXTS_COMPARED or no more."""
    prompts = np.unique(judged.rows["prompt"])
    chosen = np.random.default_rng(seed).permutation(prompts)[:TEXTS_COMPARED]
    found: list[Text] = []
    for part in parts_of(judged.select(np.isin(judged.rows["prompt"], chosen)), 1):
        found += part.texts()
        if len(found) >= TEXTS_COMPARED:
            break
    return found[: 2 * TEXTS_COMPARED]


def reward_agreement(scores: Mapping[str, Tensor], texts: Sequence[Text]) -> list[Agreement]:
    """How far reward models agree, two by two.

    Args:
        scores: [U] of each model on the same texts, by the model's name.
    """
    columns = {name: np.asarray(score, dtype=np.float64) for name, score in scores.items()}
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in texts))}
    prompts = np.array([number[prompt] for prompt, _ in texts])
    one, other = np.triu_indices(len(texts), 1)
    together = prompts[one] == prompts[other]
    one, other = one[together], other[together]
    found = []
    for (first, a), (second, b) in itertools.combinations(columns.items(), 2):
        same = np.sign(a[one] - a[other]) == np.sign(b[one] - b[other])
        share = float(same.mean()) if len(same) else None
        found.append(Agreement(first, second, rank_correlation(a, b), kendall_tau_b(a, b), share, len(texts)))
    return found


def _process() -> tuple[int, int, torch.device]:
    """Rank, number of processes, and where tensors must be to be exchanged between them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1, torch.device("cpu")
    on_gpu = torch.distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), device
