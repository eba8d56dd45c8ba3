"""What a reward model is worth on feedback that it hasn't seen: does it keep the orders that people stated, how sure is it, does it go
by length."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.feedback.judgements import KINDS, Judged, Text, prompt_number
from rlhf_lightning.flow import Feedback, Prompt, Ranking, Thumbs
from rlhf_lightning.reward.evaluation.calibration import Calibration, calibration
from rlhf_lightning.reward.evaluation.comparisons import comparisons
from rlhf_lightning.reward.evaluation.score_checks import are_same
from rlhf_lightning.statistics.intervals import Interval, clustered_mean_interval, clustered_proportion_interval, correlation_interval
from rlhf_lightning.statistics.ranks import area_under_curve, kendall_tau_b, partial_rank_correlation, rank_correlation

FEWEST = 3
"""Texts or ratings from which a rank correlation is taken."""


@dataclass(frozen=True)
class Length:
    """How far a reward model goes by the length of the response, in characters. Comparisons of equal length are left out.

    Attributes:
        longer, shorter: accuracy where the better response is the longer one, and where it is the shorter one. A model that knows length
            alone has 1 and 0.
        people, model: how often the longer response was judged better, and how often it scores higher.
        correlation: Spearman's of score and length over the texts.
        partial: the same with what the response is worth held fixed, by `given`: "ratings" (mean z-score) or "utility".
    """

    longer: Interval | None
    shorter: Interval | None
    people: Interval | None
    model: Interval | None
    correlation: Interval | None
    partial: Interval | None
    given: str


@dataclass(frozen=True)
class HeldOut:
    """A reward model's metrics on held-out feedback; None, or absent, where the feedback can't tell.

    Attributes:
        accuracy: share of comparisons whose better response scores higher, a tie of the scores being wrong; "all" and by kind. by_source:
            by data set. The intervals know that comparisons on one prompt hang together.
        tied: share of comparisons whose scores are equal.
        calibration: of the comparisons that people stated; those read off ratings have no odds.
        kendall: mean tau-b of scores and places over rankings of three or more.
        spearman: of scores and ratings (z-scores), each rating one, taken as independent. spearman_within: mean over the prompts with
            three or more rated responses, of the mean rating of each.
        auc: area under the curve for thumbs.
        batch_change: by how much a score changes at most when texts are scored in other company, in standard deviations of the score; it
            should be rounding, below 1e-4.
        same_scores: of how many texts, where all have the same score; else 0.
    """

    accuracy: dict[str, Interval]
    by_source: dict[str, Interval]
    tied: float | None
    calibration: Calibration | None
    kendall: Interval | None
    spearman: Interval | None
    spearman_within: Interval | None
    auc: Interval | None
    length: Length
    batch_change: float
    same_scores: int = 0

    @property
    def objective(self) -> float:
        """The first that there is of accuracy, correlation with ratings, area under the curve of thumbs; 0 without any."""
        known = (self.accuracy.get("all"), self.spearman, self.auc)
        return next((interval.mean for interval in known if interval is not None), 0.0)

    def named(self) -> dict[str, Interval | float]:
        """Everything by name, with its interval where it has one."""
        found: dict[str, Interval | float | None] = {f"accuracy/{kind}": interval for kind, interval in self.accuracy.items()}
        found |= {
            "kendall/ranking": self.kendall, "spearman/rating": self.spearman, "spearman/rating_within_prompt": self.spearman_within,
            "auc/thumbs": self.auc, "accuracy/longer": self.length.longer, "accuracy/shorter": self.length.shorter,
            "length/spearman": self.length.correlation, "length/partial": self.length.partial, "tied": self.tied,
        }  # fmt: skip
        if self.calibration is not None:
            found |= {"ece": self.calibration.ece, "brier": self.calibration.brier, "nll": self.calibration.nll}
        return {name: value for name, value in found.items() if value is not None}

    def metrics(self) -> dict[str, float]:
        """The plain metrics by name, for sweeps."""
        return {name: value.mean if isinstance(value, Interval) else value for name, value in self.named().items()}

    def card(self) -> dict[str, float | dict[str, float]]:
        """The metrics by name, those with an interval as mean, low, high and n; bounds that aren't finite are left out."""
        return {name: _bounds_of(value) if isinstance(value, Interval) else value for name, value in self.named().items()}


class HeldOutMetric(Metric):
    """Collects what `HeldOut` is made of. States are tables of float64 rows, put together over processes by torchmetrics: each process
    updates with the judgements of some of the prompts, of each prompt all.

    `compute` gives `HeldOut.metrics` as tensors; `held_out` the whole record.

    Args:
        sources: the names of all data sets (`data_set`), the same in every process.
        has_truth: a utility is known (see `update`).
        by_text: judgements hang together by their texts alone (`Judgements.by_text`).
    """

    full_state_update = False
    compared: Any
    ranked: Any
    rated: Any
    thumbed: Any
    texts: Any
    batch_change: Tensor

    COLUMNS = {"compared": 5, "ranked": 2, "rated": 2, "thumbed": 2, "texts": 5}  # noqa: RUF012  (torchmetrics reads no class variables)

    def __init__(self, sources: Sequence[str], has_truth: bool = False, by_text: bool = False) -> None:
        super().__init__()
        self.sources, self.has_truth, self.by_text = list(sources), has_truth, by_text
        for name in self.COLUMNS:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("batch_change", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, judged: Iterable[Judged], scores: Mapping[Text, float], truth: Callable[[Prompt, str], float] | None = None) -> None:
        """Add judgements.

        Args:
            judged: all judgements on some prompts.
            scores: of each of their texts, in log-odds.
            truth: what a response is worth, where that is known.
        """
        judged = list(judged)
        place = {name: index for index, name in enumerate(self.sources)}
        ratings: dict[Text, list[float]] = defaultdict(list)
        rows: dict[str, list[list[float]]] = {name: [] for name in self.COLUMNS}
        for kind, prompt, better, worse, source in comparisons(judged):
            difference = scores[prompt, better] - scores[prompt, worse]
            rows["compared"].append(
                [self._cluster(prompt, better), KINDS.index(kind), place[source], difference, len(better) - len(worse)]
            )  # fmt: skip
        for record in judged:
            feedback = record.feedback
            text = (feedback.prompt, feedback.responses[0])
            if isinstance(feedback.judgement, Thumbs):
                rows["thumbed"].append([scores[text], feedback.judgement.up])
            if record.z_score is not None:
                rows["rated"].append([scores[text], record.z_score])
                ratings[text].append(record.z_score)
            rows["ranked"] += [[self._cluster(feedback.prompt, feedback.responses[0]), tau] for tau in _tau(feedback, scores)]
        for text, score in scores.items():
            z_score = np.mean(ratings[text]) if text in ratings else np.nan
            rows["texts"].append([self._cluster(*text), score, len(text[1]), float(z_score), np.nan if truth is None else truth(*text)])
        for name, columns in self.COLUMNS.items():
            table = torch.tensor(rows[name], dtype=torch.float64, device=self.device)
            getattr(self, name).append(table.reshape(-1, columns))

    def _cluster(self, prompt: Prompt, text: str) -> int:
        return _cluster("" if self.by_text else prompt, text)

    def compute(self) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self._held_out().metrics().items()}

    def held_out(self) -> HeldOut:
        """The metrics with their intervals, over all processes."""
        with self.sync_context():
            return self._held_out()

    def _table(self, name: str) -> np.ndarray:
        """The columns of a state."""
        state = getattr(self, name)
        rows = torch.cat(list(state)) if isinstance(state, list) and state else state
        return rows.cpu().numpy().T if isinstance(rows, Tensor) else np.zeros((self.COLUMNS[name], 0))

    def _held_out(self) -> HeldOut:
        cluster, kind, source, difference, longer = self._table("compared")
        tau_cluster, tau = self._table("ranked")
        score, z_score = self._table("rated")
        thumbed, up = self._table("thumbed")
        right = difference > 0
        accuracy = {"all": share_of(right, cluster)} if len(right) else {}
        accuracy |= {KINDS[int(k)]: share_of(right[kind == k], cluster[kind == k]) for k in np.unique(kind)}
        stated = kind != KINDS.index("rating")
        return HeldOut(
            accuracy=accuracy,
            by_source={self.sources[int(s)]: share_of(right[source == s], cluster[source == s]) for s in np.unique(source)},
            tied=float((difference == 0).mean()) if len(right) else None,
            calibration=calibration(difference[stated], cluster[stated]),
            kendall=clustered_mean_interval(tau, tau_cluster) if len(tau) else None,
            spearman=_bounded(rank_correlation(score, z_score), len(score)) if len(score) >= FEWEST else None,
            spearman_within=self._within(),
            auc=area_under_curve(thumbed, up > 0),
            length=self._length(cluster, right, difference, longer),
            batch_change=float(self.batch_change),
            same_scores=self._same_scores(),
        )

    def _same_scores(self) -> int:
        scores = self._table("texts")[1]
        return len(scores) if are_same(torch.from_numpy(scores)) else 0

    def _within(self) -> Interval | None:
        cluster, score, _, z_score, _ = self._table("texts")
        found = []
        for rows in _groups(cluster, np.isfinite(z_score)):
            if len(rows) >= FEWEST and np.ptp(z_score[rows]) > 0:
                found.append(rank_correlation(score[rows], z_score[rows]) or 0.0)
        return clustered_mean_interval(found, range(len(found))) if found else None

    def _length(self, cluster: np.ndarray, right: np.ndarray, difference: np.ndarray, longer: np.ndarray) -> Length:
        _, score, length, z_score, truth = self._table("texts")
        worth = truth if self.has_truth else z_score
        known = np.isfinite(worth)
        partial = partial_rank_correlation(score[known], length[known], worth[known]) if known.sum() > FEWEST else None
        more, less, unequal = longer > 0, longer < 0, longer != 0
        return Length(
            longer=share_of(right[more], cluster[more]) if more.any() else None,
            shorter=share_of(right[less], cluster[less]) if less.any() else None,
            people=share_of(more[unequal], cluster[unequal]) if unequal.any() else None,
            model=share_of((difference * longer > 0)[unequal], cluster[unequal]) if unequal.any() else None,
            correlation=_bounded(rank_correlation(score, length), len(score)) if len(score) >= FEWEST else None,
            partial=_bounded(partial, int(known.sum()) - 1),
            given="utility" if self.has_truth else "ratings",
        )


share_of = clustered_proportion_interval


@functools.lru_cache(maxsize=4096)
def _cluster(prompt: Prompt, text: str) -> int:
    """The prompt as a number that float64 holds; texts judged by themselves hang together with nothing."""
    return prompt_number(prompt or text) >> 12


def _tau(feedback: Feedback, scores: Mapping[Text, float]) -> list[float]:
    if not isinstance(feedback.judgement, Ranking) or len(feedback.responses) < 3:
        return []
    ranked = [
        (scores[feedback.prompt, text], -rank)
        for text, rank in zip(feedback.responses, feedback.judgement.ranks, strict=True)
        if rank is not None
    ]
    tau = kendall_tau_b(*np.array(ranked, dtype=np.float64).reshape(-1, 2).T)
    return [] if tau is None else [tau]


def _groups(cluster: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Indices of the chosen rows, cluster by cluster."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(cluster[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(cluster[rows])) + 1) if len(rows) else []


def _bounded(correlation: float | None, n: int) -> Interval | None:
    return None if correlation is None else correlation_interval(correlation, n)


def _bounds_of(interval: Interval) -> dict[str, float]:
    found = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    return {name: value for name, value in found.items() if np.isfinite(value)}
