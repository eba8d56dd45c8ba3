"""What a reward model is worth on feedback that it hasn't seen: does it keep the orders that people stated, how sure is it, does it go
by length."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.feedback import standardise
from rlhf_lightning.feedback.judgements import KINDS, Judged, Judgements, Text, judgement_kind, prompt_number
from rlhf_lightning.feedback.quality.bias import rank_correlation
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.flow import Feedback, Prompt, Ranking, Thumbs
from rlhf_lightning.interval import Interval, clustered_mean_interval, clustered_proportion_interval, correlation_interval
from rlhf_lightning.reward.calibration import Calibration, calibration
from rlhf_lightning.reward.ranks import area_under_curve, kendall_tau_b, partial_rank_correlation

MOST_PAIRS = 2_000
"""Pairs of ratings compared of one prompt, annotator and aspect; beyond, a fixed draw of so many: their number grows with the square."""
AT_A_TIME = 4_096
"""Judgements whose texts are scored together."""
RESCORED = 128
FEWEST = 3
"""Texts or ratings from which a rank correlation is taken."""


class TextScorer(Protocol):
    """A reward model. Where it has a `deviation`, its scores are log-odds divided by that."""

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = ...) -> Tensor:
        """Scores [U] of responses to prompts."""
        ...


class Comparison(NamedTuple):
    """One response is better than another to the same prompt: by what kind of judgement, in which data set."""

    kind: str
    prompt: Prompt
    better: str
    worse: str
    source: str


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
    """A reward model's figures on held-out feedback; None, or absent, where the feedback can't tell.

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

    @property
    def objective(self) -> float:
        """The first that there is of accuracy, correlation with ratings, area under the curve of thumbs; 0 without any."""
        known = (self.accuracy.get("all"), self.spearman, self.auc)
        return next((interval.mean for interval in known if interval is not None), 0.0)

    def figures(self) -> dict[str, float]:
        """The figures by name, for sweeps and the model's card."""
        found = {f"accuracy/{kind}": interval for kind, interval in self.accuracy.items()}
        named = {
            "kendall/ranking": self.kendall, "spearman/rating": self.spearman, "spearman/rating_within_prompt": self.spearman_within,
            "auc/thumbs": self.auc, "accuracy/longer": self.length.longer, "accuracy/shorter": self.length.shorter,
            "length/spearman": self.length.correlation, "length/partial": self.length.partial,
        }  # fmt: skip
        found |= {name: interval for name, interval in named.items() if interval is not None}
        means = {name: interval.mean for name, interval in found.items()}
        if self.calibration is not None:
            means |= {"ece": self.calibration.ece, "brier": self.calibration.brier, "nll": self.calibration.nll}
        return means | ({} if self.tied is None else {"tied": self.tied})


class HeldOutMetric(Metric):
    """Collects what `HeldOut` is made of. States are tables of float64 rows, put together over processes by torchmetrics: each process
    updates with the judgements of some of the prompts, of each prompt all.

    `compute` gives `HeldOut.figures` as tensors; `held_out` the whole record.

    Args:
        sources: the names of all data sets (`data_set`), the same in every process.
        has_truth: a utility is known (see `update`).
    """

    full_state_update = False
    compared: Any
    ranked: Any
    rated: Any
    thumbed: Any
    texts: Any
    batch_change: Tensor

    COLUMNS = {"compared": 5, "ranked": 2, "rated": 2, "thumbed": 2, "texts": 5}  # noqa: RUF012  (torchmetrics reads no class variables)

    def __init__(self, sources: Sequence[str], has_truth: bool = False) -> None:
        super().__init__()
        self.sources, self.has_truth = list(sources), has_truth
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
                [_cluster(prompt, better), KINDS.index(kind), place[source], difference, len(better) - len(worse)]
            )  # fmt: skip
        for record in judged:
            feedback = record.feedback
            text = (feedback.prompt, feedback.responses[0])
            if isinstance(feedback.judgement, Thumbs):
                rows["thumbed"].append([scores[text], feedback.judgement.up])
            if record.z_score is not None:
                rows["rated"].append([scores[text], record.z_score])
                ratings[text].append(record.z_score)
            rows["ranked"] += _tau(feedback, scores)
        for text, score in scores.items():
            z_score = np.mean(ratings[text]) if text in ratings else np.nan
            rows["texts"].append([_cluster(*text), score, len(text[1]), float(z_score), np.nan if truth is None else truth(*text)])
        for name, columns in self.COLUMNS.items():
            table = torch.tensor(rows[name], dtype=torch.float64, device=self.device)
            getattr(self, name).append(table.reshape(-1, columns))

    def compute(self) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self._held_out().figures().items()}

    def held_out(self) -> HeldOut:
        """The figures with their intervals, over all processes."""
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
        )

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


@torch.no_grad()
def measure_held_out(
    model: TextScorer, judged: Judgements, *, truth: Callable[[Prompt, str], float] | None = None, batch_size: int = 64
) -> HeldOut:
    """The figures of a reward model on feedback. Under several processes each scores its share of the prompts; all get the same record.

    Args:
        truth: what a response is worth, where that is known.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    rank, world, device = _process()
    metric = HeldOutMetric(sorted({data_set(record.feedback) for record in judged}), truth is not None).to(device)
    mine = judged.select(judged.rows["prompt"] % world == rank)
    metric.update([], {})  # a process without a prompt takes part, too
    for part in parts_of(mine, AT_A_TIME):
        texts = part.texts()
        scores = log_odds(model, texts, batch_size).tolist()
        metric.update(part, dict(zip(texts, scores, strict=True)), truth)
    metric.batch_change.fill_(batch_change(model, mine[:RESCORED].texts()[:RESCORED], batch_size))
    return metric.held_out()


def comparisons(judged: Iterable[Judged]) -> list[Comparison]:
    """Every order that the feedback states; ratings are compared within a prompt, annotator, aspect and data set, at most MOST_PAIRS."""
    found = []
    rated: dict[tuple[Prompt, str | None, int, str], list[tuple[float, str]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        source = data_set(feedback)
        for better, worse in standardise.comparisons(feedback):
            texts = feedback.responses
            found.append(Comparison(judgement_kind(feedback), feedback.prompt, texts[better], texts[worse], source))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator, record.aspect, source].append((record.z_score, feedback.responses[0]))
    for (prompt, _, _, source), given in rated.items():
        for i, j in _pairs(len(given)):
            (z_1, text_1), (z_2, text_2) = given[i], given[j]
            if z_1 != z_2 and text_1 != text_2:
                found.append(Comparison("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1)), source))
    return found


def parts_of(judged: Judgements, size: int) -> Iterator[Judgements]:
    """The judgements in parts of about `size`, those on one prompt together in one part."""
    judged = judged.select(np.argsort(judged.rows["prompt"], kind="stable"))
    starts = np.flatnonzero(np.diff(judged.rows["prompt"], prepend=0, append=0) != 0)
    cuts = [0]
    for start in (int(start) for start in starts):
        if start - cuts[-1] >= size:
            cuts.append(start)
    for start, end in itertools.pairwise([*cuts, len(judged)]):
        if start < end:
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


def _process() -> tuple[int, int, torch.device]:
    """Rank, number of processes, and where tensors must be to be exchanged between them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1, torch.device("cpu")
    on_gpu = torch.distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), device


@functools.lru_cache(maxsize=4096)
def _cluster(prompt: Prompt, text: str) -> int:
    """The prompt as a number that float64 holds; texts judged by themselves hang together with nothing."""
    return prompt_number(prompt or text) >> 12


def _tau(feedback: Feedback, scores: Mapping[Text, float]) -> list[list[float]]:
    if not isinstance(feedback.judgement, Ranking) or len(feedback.responses) < 3:
        return []
    ranked = [(scores[feedback.prompt, text], -rank) for text, rank in zip(feedback.responses, feedback.judgement.ranks, strict=True) if rank is not None]
    tau = kendall_tau_b(*np.array(ranked, dtype=np.float64).reshape(-1, 2).T)
    return [] if tau is None else [[_cluster(feedback.prompt, feedback.responses[0]), tau]]


def _pairs(count: int) -> Iterable[tuple[int, int]]:
    if count * (count - 1) // 2 <= MOST_PAIRS:
        return itertools.combinations(range(count), 2)
    first, apart = np.random.default_rng(count).integers((0, 1), (count, count), (MOST_PAIRS, 2)).T
    return zip(first.tolist(), ((first + apart) % count).tolist(), strict=True)


def _groups(cluster: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Indices of the chosen rows, cluster by cluster."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(cluster[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(cluster[rows])) + 1) if len(rows) else []


def _bounded(correlation: float | None, n: int) -> Interval | None:
    return None if correlation is None else correlation_interval(correlation, n)
