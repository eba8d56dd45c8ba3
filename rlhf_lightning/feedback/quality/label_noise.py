"""Judgements that are probably wrong, by others' judgements and by a text model.

Own code: out-of-sample probabilities are combined from annotators and texts; cleanlab takes one matrix of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from rlhf_lightning.feedback.judgements import prompt_share
from rlhf_lightning.feedback.quality.rating_noise import rating_noise
from rlhf_lightning.feedback.quality.reliability import pair_truth, thumbs_truth
from rlhf_lightning.feedback.quality.text_model import (
    MIN_PROMPTS,
    FeatureRows,
    Features,
    feature_difference,
    features,
    log_odds,
    signed_features,
)
from rlhf_lightning.feedback.quality.votes import Comparisons, Tables, Votes, tables_of
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Edit, Feedback, Prompt

TEXT_CAP = 20_000
MIN_TEXT_ACCURACY = 0.7
MIN_CLASS = 20
"""Fewest judgements of a class, as of thumbs down, among which the text alone makes suspects: it flags what is rare."""
Route = Literal["others", "text", "both"]


@dataclass(frozen=True)
class JudgementNoise:
    """Probability that one judgement is wrong, by all evidence except itself.

    Attributes:
        score: that probability, in [0, 1]; for a ranking the mean of its pairs. For a rating, the probability that it is independent
            of the rated text.
        route: the evidence: others' judgements of the same unit, the text, or both.
        suspect: beyond the threshold of its class.
    """

    score: float
    route: Route
    suspect: bool


@dataclass(frozen=True)
class LabelNoise:
    """The noise of each record; None without evidence, as for ties, spans and comments.

    Attributes:
        judgements: in the order of the feedback.
        text_accuracy: how often the text model, fitted on other prompts, agrees with each "comparison", "edit" and "thumbs"; a kind
            without text evidence is absent.
    """

    judgements: list[JudgementNoise | None]
    text_accuracy: dict[str, float]


@dataclass(frozen=True)
class _Evidence:
    """Evidence on N votes.

    Attributes:
        record, weight: [N] index of the record, and the vote's weight in it.
        given_class, opposite_class: [N] classes of the given label and of the other one.
        others_log_odds, text_log_odds: [N] log-odds that the vote is right. has_others, has_text: [N] masks of available evidence.
    """

    record: np.ndarray
    weight: np.ndarray
    given_class: np.ndarray
    opposite_class: np.ndarray
    others_log_odds: np.ndarray
    text_log_odds: np.ndarray
    has_others: np.ndarray
    has_text: np.ndarray


def label_noise(feedback: Sequence[Feedback], tables: Tables | None = None, *, text_cap: int = TEXT_CAP) -> LabelNoise:
    """Estimate label noise by confident learning.

    C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021. Probabilities are out of
    sample: the consensus of others on the same pair or response (Dawid and Skene) without the judgement itself; for
    comparisons, edits and thumbs its odds are multiplied by those of a text model (`text_model.log_odds`). A judgement is confidently
    wrong if the opposite is at least as probable as that label is on average where it was given; confidently right likewise. Their
    ratio, by label and kind of evidence, estimates the number of wrong ones; the least probable are suspect ("prune by noise rate").

    Deviations: none is suspect at 50 % or below; text evidence alone makes suspects only if the text model agrees with 70 % of the
    judgements and beats the majority class, and only in classes of MIN_CLASS judgements, since else its disagreements are seldom
    errors. Ratings aren't labels: a rating is suspect if it is more probably a mistake than not, a mistake being a draw from its
    annotator's distribution of ratings.

    Args:
        tables: of the feedback, if they are computed already.
        text_cap: approximate number of comparisons and edits, and of thumbs, in the text models, sampled by prompt.
    """
    tables = tables_of(feedback) if tables is None else tables
    noises: list[JudgementNoise | None] = [None] * len(feedback)
    accuracy: dict[str, float] = {}
    comparisons, edits = _comparisons(feedback, tables.pairs, text_cap)
    evidence_by_kind = {
        "comparison": comparisons,
        "edit": edits,
        "thumbs": _thumbs(feedback, tables.thumbs, text_cap),
    }
    for kind, evidence in evidence_by_kind.items():
        if evidence.has_text.any():
            accuracy[kind] = float(np.average(evidence.text_log_odds[evidence.has_text] > 0, weights=evidence.weight[evidence.has_text]))
        _score_votes(evidence, noises, _is_trusted(evidence, accuracy.get(kind, 0.0)))
    _score_ratings(tables.ratings, noises)
    return LabelNoise(noises, accuracy)


def _is_trusted(votes: _Evidence, accuracy: float) -> bool:
    """Require a text model that is often right and beats the majority class by two standard errors."""
    labels, n = votes.given_class[votes.has_text], int(votes.has_text.sum())
    majority = max(float(labels.mean()), 1 - float(labels.mean())) if n and np.ptp(votes.given_class) else 0.5
    return accuracy >= MIN_TEXT_ACCURACY and accuracy > majority + 2 * np.sqrt(majority * (1 - majority) / max(n, 1))


def _score_votes(votes: _Evidence, noises: list[JudgementNoise | None], trusted: bool) -> None:
    """Fill in the noise of each record with evidence."""
    informed = votes.has_others | votes.has_text
    if not informed.any():
        return
    record, row = np.unique(votes.record[informed], return_inverse=True)
    total = np.bincount(row, votes.weight[informed])

    def mean(column: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(row, votes.weight[informed] * column[informed]) / total)

    wrong = mean(1 / (1 + np.exp(np.clip(votes.others_log_odds + votes.text_log_odds, -500, 500))))
    has_others, has_text = mean(votes.has_others) > 0, mean(votes.has_text) > 0
    given_class, opposite_class = (
        2 * np.round(mean(column)).astype(np.int64) + has_others for column in (votes.given_class, votes.opposite_class)
    )
    is_common = np.bincount(given_class)[given_class] >= MIN_CLASS
    suspect = _prune(wrong, given_class, opposite_class) & (has_others | (trusted & is_common))
    for i, index in enumerate(record.tolist()):
        route: Route = "both" if has_others[i] and has_text[i] else "others" if has_others[i] else "text"
        noises[index] = JudgementNoise(float(wrong[i]), route, bool(suspect[i]))


def _prune(wrong: np.ndarray, given_class: np.ndarray, opposite_class: np.ndarray) -> np.ndarray:
    """Return a mask [N] of suspects: as many as the confident judgements imply, worst first.

    Args:
        wrong: [N] probability of the opposite.
        given_class, opposite_class: [N]. If nobody gave the opposite, its threshold is that of the given class.
    """
    classes = int(max(given_class.max(), opposite_class.max())) + 1
    size = np.bincount(given_class, minlength=classes)
    confidence = np.bincount(given_class, 1 - wrong, classes) / np.clip(size, 1, None)
    is_confident_wrong = wrong >= np.maximum(np.where(size[opposite_class] > 0, confidence[opposite_class], confidence[given_class]), 0.5)
    is_confident_right = 1 - wrong >= np.maximum(confidence[given_class], 0.5)
    suspect = np.zeros(len(wrong), dtype=bool)
    for label_class in np.flatnonzero(size):
        rows = np.flatnonzero(given_class == label_class)
        wrong_count, right_count = int(is_confident_wrong[rows].sum()), int((is_confident_right[rows] & ~is_confident_wrong[rows]).sum())
        suspect_count = round(len(rows) * wrong_count / (wrong_count + right_count)) if wrong_count else 0
        worst = rows[np.argsort(-wrong[rows], kind="stable")[:suspect_count]]
        suspect[worst[wrong[worst] > 0.5]] = True
    return suspect


def _comparisons(feedback: Sequence[Feedback], pairs: Comparisons, text_cap: int) -> tuple[_Evidence, _Evidence]:
    """Collect the evidence on comparisons and on edits (the edited text is better), with one text model."""
    votes = pairs.take(pairs.value != 0.5)
    first_won = votes.value == 1
    others_log_odds, has_others = np.zeros(len(votes)), _is_repeated(votes.unit)
    if has_others.any():
        posterior = pair_truth(pairs).without(votes.unit, votes.annotator, first_won.astype(np.int64))
        others_log_odds[has_others] = (np.where(first_won, 1, -1) * _logit(posterior))[has_others]
    edits = np.array([i for i, record in enumerate(feedback) if isinstance(record.judgement, Edit) and comparisons(record)], dtype=np.int64)
    record = np.concatenate([votes.record, edits])
    better = np.concatenate([np.where(first_won, votes.first_at, votes.second_at), np.ones_like(edits)])
    worse = np.concatenate([np.where(first_won, votes.second_at, votes.first_at), np.zeros_like(edits)])
    weight = np.concatenate([votes.weight, np.ones(len(edits))])
    cached_features = lru_cache(maxsize=4096)(features)

    def row(vote: int) -> Features:
        texts = feedback[record[vote]].responses
        return feature_difference(cached_features(texts[better[vote]]), cached_features(texts[worse[vote]]))

    text_log_odds, has_text = _text_log_odds(feedback, record, row, weight, text_cap)
    zeros, edit_zeros = np.zeros(len(votes), dtype=np.int64), np.zeros(len(edits), dtype=np.int64)
    split = len(votes)
    return (
        _Evidence(votes.record, votes.weight, zeros, zeros, others_log_odds, text_log_odds[:split], has_others, has_text[:split]),
        _Evidence(edits, weight[split:], edit_zeros, edit_zeros, 0.0 * edit_zeros, text_log_odds[split:], edit_zeros > 0, has_text[split:]),
    )


def _thumbs(feedback: Sequence[Feedback], votes: Votes, text_cap: int) -> _Evidence:
    up = votes.value.astype(np.int64)
    others_log_odds, has_others = np.zeros(len(votes)), _is_repeated(votes.unit)
    if has_others.any():
        posterior = thumbs_truth(votes).without(votes.unit, votes.annotator, up)
        others_log_odds[has_others] = (np.where(up == 1, 1, -1) * _logit(posterior))[has_others]
    weight = np.ones(len(votes))
    text_log_odds, has_text = _text_log_odds(
        feedback,
        votes.record,
        lambda vote: signed_features(features(feedback[votes.record[vote]].responses[0]), bool(up[vote])),
        weight,
        text_cap,
    )
    return _Evidence(votes.record, weight, up, 1 - up, others_log_odds, text_log_odds, has_others, has_text)


def _score_ratings(ratings: Votes, noises: list[JudgementNoise | None]) -> None:
    """Fill in the noise of each rating of a unit with other ratings.

    A mistaken rating is independent of its unit, drawn from its annotator's distribution of ratings. The fraction of
    mistakes in each data set and aspect is fitted by EM.
    """
    for group in np.unique(ratings.group):
        rows = np.flatnonzero(ratings.group == group)
        votes = ratings.take(rows[_is_repeated(ratings.unit[rows])])
        if not len(votes):
            continue
        unit, annotator = np.unique(votes.unit, return_inverse=True)[1], votes.annotator
        model = rating_noise(unit, annotator, votes.value)
        true, variance = model.without(unit, annotator, votes.value)
        gain, noise = model.gain[annotator], model.variance[annotator]
        deviation = votes.value - model.offset[annotator]
        mistake_density = _normal_density(deviation, gain**2 + noise)
        honest_density = _normal_density(deviation - gain * true, gain**2 * variance + noise)
        mistake_rate = 0.1
        for _ in range(200):
            wrong = mistake_rate * mistake_density / (mistake_rate * mistake_density + (1 - mistake_rate) * honest_density + 1e-300)
            mistake_rate = float(wrong.mean())
        for index, score in zip(votes.record.tolist(), wrong.tolist(), strict=True):
            noises[index] = JudgementNoise(score, "others", score > 0.5)


def _normal_density(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-(difference**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))


def _text_log_odds(
    feedback: Sequence[Feedback], record: np.ndarray, row: Callable[[int], Features], weight: np.ndarray, text_cap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return [N] log-odds of the text model (0 without evidence or beyond the cap), and a mask."""
    text_log_odds = np.zeros(len(record))
    rows = np.arange(len(record))
    units = _groups([feedback[index] for index in record])
    if len(record) > text_cap:
        share = np.array([prompt_share(unit) for unit in units])
        rows = np.flatnonzero(share < text_cap / len(record))
    if len(rows):
        texts = FeatureRows.of(row(int(vote)) for vote in rows)
        text_log_odds[rows] = log_odds(texts, [units[vote] for vote in rows], weight[rows])
    return text_log_odds, text_log_odds != 0


def _groups(records: Sequence[Feedback]) -> list[Prompt]:
    """Return each judgement's group: the prompt, or the first text if there are few prompts."""
    prompts: list[Prompt] = [record.prompt or min(record.responses) for record in records]
    return prompts if len(set(prompts)) >= MIN_PROMPTS else [min(record.responses) for record in records]


def _is_repeated(unit: np.ndarray) -> np.ndarray:
    """Return a mask [N] of votes on units with several votes."""
    return np.asarray(np.bincount(unit)[unit] > 1) if len(unit) else np.zeros(0, dtype=bool)


def _logit(posteriors: np.ndarray) -> np.ndarray:
    """Return [N] log-odds of label 1 against label 0."""
    return np.asarray(np.log(posteriors[:, 1].clip(1e-12)) - np.log(posteriors[:, 0].clip(1e-12)))
