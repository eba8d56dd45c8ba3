"""Scores and judgements as tables, and the held-out metrics of these."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from rlhf_lightning.feedback.judgements import KINDS, Judged, PromptResponse, prompt_number
from rlhf_lightning.flow import Feedback, Prompt, Ranking, Thumbs
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
from rlhf_lightning.reward.evaluation.held_out import HeldOut, LengthBias, calibration
from rlhf_lightning.reward.evaluation.score_checks import all_equal
from rlhf_lightning.reward.evaluation.verdict import judge_reward_model
from rlhf_lightning.statistics.intervals import Interval, clustered_mean_interval, clustered_proportion_interval, correlation_interval
from rlhf_lightning.statistics.ranks import area_under_curve, kendall_tau_b, partial_rank_correlation, rank_correlation

MIN_TEXTS = 3
"""Fewest texts or ratings of a rank correlation."""
COMPARISON = np.dtype([("cluster", "i8"), ("kind", "O"), ("source", "O"), ("difference", "f8"), ("extra_length", "i8")])
"""The scores' difference and the lengths' difference of a better and a worse response."""
TAU = np.dtype([("cluster", "i8"), ("tau", "f8")])
RATING = np.dtype([("score", "f8"), ("z_score", "f8"), ("length", "i8")])
THUMB = np.dtype([("score", "f8"), ("up", "?"), ("length", "i8")])
TEXT = np.dtype([("cluster", "i8"), ("score", "f8"), ("length", "i8"), ("z_score", "f8"), ("utility", "f8")])
"""A text with its mean z-score and its utility, NaN where unknown."""


@dataclass
class Outcomes:
    """Tables of scores with judgements: one row per comparison, ranking, rating, thumb and text.

    A cluster is the number of a prompt. `batch_change` is that of `HeldOut`.
    """

    comparisons: np.ndarray = field(default_factory=functools.partial(np.zeros, 0, COMPARISON))
    taus: np.ndarray = field(default_factory=functools.partial(np.zeros, 0, TAU))
    ratings: np.ndarray = field(default_factory=functools.partial(np.zeros, 0, RATING))
    thumbs: np.ndarray = field(default_factory=functools.partial(np.zeros, 0, THUMB))
    texts: np.ndarray = field(default_factory=functools.partial(np.zeros, 0, TEXT))
    batch_change: float = 0.0


def collect(
    judged: Iterable[Judged],
    scores: Mapping[PromptResponse, float],
    truth: Callable[[Prompt, str], float] | None = None,
    by_text: bool = False,
) -> Outcomes:
    """Tabulate all judgements on some prompts.

    Args:
        scores: of each of their texts, in log-odds.
        truth: the utility of a response, if it is known.
        by_text: cluster judgements by their texts alone (`Judgements.by_text`).
    """
    judged = list(judged)

    def cluster(prompt: Prompt, text: str) -> int:
        return _cluster("" if by_text else prompt, text)

    comparisons, taus, rated, thumbs = [], [], [], []
    for kind, prompt, better, worse, source in judged_comparisons(judged):
        difference = scores[prompt, better] - scores[prompt, worse]
        comparisons.append((cluster(prompt, better), kind, source, difference, len(better) - len(worse)))
    z_scores: dict[PromptResponse, list[float]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        text = (feedback.prompt, feedback.responses[0])
        if isinstance(feedback.judgement, Thumbs):
            thumbs.append((scores[text], feedback.judgement.up, len(text[1])))
        if record.z_score is not None:
            rated.append((scores[text], record.z_score, len(text[1])))
            z_scores[text].append(record.z_score)
        taus += [(cluster(*text), tau) for tau in _taus(feedback, scores)]
    texts = [
        (cluster(*text), score, len(text[1]), np.mean(z_scores[text]) if text in z_scores else np.nan, truth(*text) if truth else np.nan)
        for text, score in scores.items()
    ]
    return Outcomes(
        comparisons=np.array(comparisons, COMPARISON),
        taus=np.array(taus, TAU),
        ratings=np.array(rated, RATING),
        thumbs=np.array(thumbs, THUMB),
        texts=np.array(texts, TEXT),
    )


def concat(parts: Sequence[Outcomes]) -> Outcomes:
    """Join tables of disjoint prompts."""
    parts = [Outcomes(), *parts]
    tables = {column.name: np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Outcomes)[:-1]}
    return Outcomes(**tables, batch_change=max(part.batch_change for part in parts))


def held_out_metrics(outcomes: Outcomes, has_truth: bool = False) -> HeldOut:
    """Compute the metrics with their intervals.

    Args:
        has_truth: the texts' utility is known.
    """
    rows = outcomes.comparisons
    right = rows["difference"] > 0
    stated = rows[rows["kind"] != "rating"]
    by_kind = _accuracy_by(rows, "kind", sorted(set(rows["kind"]), key=KINDS.index))
    ratings = outcomes.ratings
    scores = outcomes.texts["score"]
    return HeldOut(
        accuracy=({"all": clustered_proportion_interval(right, rows["cluster"])} if len(right) else {}) | by_kind,
        by_source=_accuracy_by(rows, "source", sorted(set(rows["source"]))),
        tied=float((rows["difference"] == 0).mean()) if len(right) else None,
        calibration=calibration(stated["difference"], stated["cluster"]),
        kendall=clustered_mean_interval(outcomes.taus["tau"], outcomes.taus["cluster"]) if len(outcomes.taus) else None,
        spearman=_spearman(ratings["score"], ratings["z_score"]),
        spearman_within=_spearman_within_prompts(outcomes.texts),
        auc=area_under_curve(outcomes.thumbs["score"], outcomes.thumbs["up"]),
        length=_length_bias(rows, outcomes.texts, has_truth),
        batch_change=outcomes.batch_change,
        thumbs_up=float(outcomes.thumbs["up"].mean()) if len(outcomes.thumbs) else None,
        verdict=judge_reward_model(rows, ratings, outcomes.thumbs),
        same_scores=len(scores) if all_equal(torch.from_numpy(scores.copy())) else 0,
    )


def _accuracy_by(rows: np.ndarray, column: str, values: Sequence[str]) -> dict[str, Interval]:
    groups = {value: rows[rows[column] == value] for value in values}
    return {value: clustered_proportion_interval(group["difference"] > 0, group["cluster"]) for value, group in groups.items()}


def _spearman_within_prompts(texts: np.ndarray) -> Interval | None:
    correlations = []
    for group in _by_cluster(texts[np.isfinite(texts["z_score"])]):
        if len(group) >= MIN_TEXTS and np.ptp(group["z_score"]) > 0:
            correlations.append(rank_correlation(group["score"], group["z_score"]) or 0.0)
    return clustered_mean_interval(correlations, range(len(correlations))) if correlations else None


def _length_bias(rows: np.ndarray, texts: np.ndarray, has_truth: bool) -> LengthBias:
    worth = texts["utility" if has_truth else "z_score"]
    has_worth = np.isfinite(worth)
    score, length = texts["score"], texts["length"]
    partial = partial_rank_correlation(score[has_worth], length[has_worth], worth[has_worth]) if has_worth.sum() > MIN_TEXTS else None
    rows = rows[rows["extra_length"] != 0]
    longer, right = rows["extra_length"] > 0, rows["difference"] > 0

    def share(outcomes: np.ndarray, mask: np.ndarray | slice = slice(None)) -> Interval | None:
        return clustered_proportion_interval(outcomes[mask], rows["cluster"][mask]) if len(outcomes[mask]) else None

    return LengthBias(
        longer=share(right, longer),
        shorter=share(right, ~longer),
        people=share(longer),
        model=share(rows["difference"] * rows["extra_length"] > 0),
        correlation=_spearman(score, length),
        partial=None if partial is None else correlation_interval(partial, int(has_worth.sum()) - 1),
        control="utility" if has_truth else "ratings",
    )


@functools.lru_cache(maxsize=4096)
def _cluster(prompt: Prompt, text: str) -> int:
    """The prompt as a 64-bit number; texts judged without a prompt are clusters of their own."""
    return prompt_number(prompt or text) >> 12


def _taus(feedback: Feedback, scores: Mapping[PromptResponse, float]) -> list[float]:
    """Tau-b of a ranking of three or more, if its ranks differ."""
    if not isinstance(feedback.judgement, Ranking) or len(feedback.responses) < 3:
        return []
    ranked = [
        (scores[feedback.prompt, text], -rank)
        for text, rank in zip(feedback.responses, feedback.judgement.ranks, strict=True)
        if rank is not None
    ]
    tau = kendall_tau_b(*np.array(ranked, dtype=np.float64).reshape(-1, 2).T)
    return [] if tau is None else [tau]


def _by_cluster(rows: np.ndarray) -> list[np.ndarray]:
    rows = rows[np.argsort(rows["cluster"], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(rows["cluster"])) + 1)


def _spearman(x: np.ndarray, y: np.ndarray) -> Interval | None:
    correlation = rank_correlation(x, y) if len(x) >= MIN_TEXTS else None
    return None if correlation is None else correlation_interval(correlation, len(x))
