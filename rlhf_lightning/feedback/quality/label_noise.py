"""Judgements that are probably wrong, by what others said of the same and by what the texts' words say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from rlhf_lightning.feedback.judgements import prompt_share
from rlhf_lightning.feedback.quality.rating_noise import rating_noise
from rlhf_lightning.feedback.quality.reliability import pair_truth, thumbs_truth
from rlhf_lightning.feedback.quality.text_model import FEWEST_PROMPTS, Features, Texts, as_said, better_than, features, log_odds
from rlhf_lightning.feedback.quality.votes import Comparisons, Tables, Votes, tables_of
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Edit, Feedback, Prompt

TEXT_CAP = 20_000
LEAST_ACCURACY = 0.7
Route = Literal["others", "text", "both"]


@dataclass(frozen=True)
class Noise:
    """How probable it is that one judgement says the opposite of the truth, by everything but itself.

    Attributes:
        score: that probability, in [0, 1], as it is before the judgement is heard; for a ranking the mean of its pairs. For a rating, the
            probability that it was made without regard to what it rates.
        route: what it rests on: others' judgements of the same, the words, or both.
        suspect: whether it is beyond the threshold of its like.
    """

    score: float
    route: Route
    suspect: bool


@dataclass(frozen=True)
class LabelNoise:
    """The noise of each record, None where nothing can be said (ties, spans, comments, what nobody else judged and words don't tell).

    Attributes:
        judgements: in the order of the feedback.
        text_accuracy: how often the words alone, learned from other prompts, agree with each "comparison", "edit" and "thumbs"; a kind
            that words tell nothing about is absent.
    """

    judgements: list[Noise | None]
    text_accuracy: dict[str, float]


@dataclass(frozen=True)
class _Said:
    """N votes.

    Attributes:
        record, weight: [N] which record, and how much the vote counts in it.
        like, opposite: [N] classes: of the label that was given, and of the other label.
        others, words: [N] log-odds that the vote is right, by others and by words. seen, read: [N] whether there was such evidence.
    """

    record: np.ndarray
    weight: np.ndarray
    like: np.ndarray
    opposite: np.ndarray
    others: np.ndarray
    words: np.ndarray
    seen: np.ndarray
    read: np.ndarray


def suspects(feedback: Sequence[Feedback], *, text_cap: int = TEXT_CAP) -> list[tuple[int, Noise]]:
    """Index and noise of every judgement that is probably wrong, the surest first."""
    found = label_noise(feedback, text_cap=text_cap).judgements
    return sorted(((i, noise) for i, noise in enumerate(found) if noise and noise.suspect), key=lambda item: (-item[1].score, item[0]))


def label_noise(feedback: Sequence[Feedback], *, text_cap: int = TEXT_CAP) -> LabelNoise:
    """Confident learning (C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021).

    The probability of what was said is out of sample. Where others judged the same pair or response it is that of their consensus
    (Dawid and Skene), without the judgement itself; for comparisons, edits and thumbs the odds of a text model are multiplied to it
    (`text_model.log_odds`). A judgement counts as confidently wrong where the opposite is at least as probable as that label is, on
    average, where it was given; as confidently right likewise. Their ratio, taken for all judgements of the same label and evidence,
    says how many of these are wrong, and the most improbable are suspect ("prune by noise rate").

    Deviations: at 50 % or below none is suspect; and words alone make suspects only where they agree with 70 % of the judgements, since
    below that what they contradict is hard, and seldom wrong. Ratings are no labels: suspect are those that are more probably a mistake
    than not, a mistake being a draw from what the annotator gives on the whole.

    Args:
        text_cap: about so many comparisons and edits, and so many thumbs, take part in the text models, drawn by prompt.
    """
    return label_noise_of(feedback, tables_of(feedback), text_cap)


def label_noise_of(feedback: Sequence[Feedback], tables: Tables, text_cap: int = TEXT_CAP) -> LabelNoise:
    """`label_noise` from the feedback's own votes."""
    found: list[Noise | None] = [None] * len(feedback)
    accuracy: dict[str, float] = {}
    comparisons, edits = _comparisons(feedback, tables.pairs, text_cap)
    parts = {
        "comparison": comparisons,
        "edit": edits,
        "thumbs": _thumbs(feedback, tables.thumbs, text_cap),
    }
    for kind, said in parts.items():
        if said.read.any():
            accuracy[kind] = float(np.average(said.words[said.read] > 0, weights=said.weight[said.read]))
        _judge(said, found, accuracy.get(kind, 0.0) >= LEAST_ACCURACY)
    _judge_ratings(tables.ratings, found)
    return LabelNoise(found, accuracy)


def _judge(said: _Said, found: list[Noise | None], trusted: bool) -> None:
    """Fill in the noise of each record that has votes with any evidence."""
    informed = said.seen | said.read
    if not informed.any():
        return
    record, of = np.unique(said.record[informed], return_inverse=True)
    total = np.bincount(of, said.weight[informed])

    def mean(column: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(of, said.weight[informed] * column[informed]) / total)

    wrong = mean(1 / (1 + np.exp(np.clip(said.others + said.words, -500, 500))))
    seen, read = mean(said.seen) > 0, mean(said.read) > 0
    given, other = (2 * np.round(mean(column)).astype(np.int64) + seen for column in (said.like, said.opposite))
    suspect = _pruned(wrong, given, other) & (seen | trusted)
    for i, index in enumerate(record.tolist()):
        route: Route = "both" if seen[i] and read[i] else "others" if seen[i] else "text"
        found[index] = Noise(float(wrong[i]), route, bool(suspect[i]))


def _pruned(wrong: np.ndarray, given: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[N] which judgements are suspect: by their number, from the confident ones, and by rank of how wrong they are.

    Args:
        wrong: [N] probability of the opposite.
        given, other: [N] the classes of the judgement and of its opposite. Where nobody gave the opposite, its threshold is the own.
    """
    classes = int(max(given.max(), other.max())) + 1
    size = np.bincount(given, minlength=classes)
    sure = np.bincount(given, 1 - wrong, classes) / np.clip(size, 1, None)
    against = wrong >= np.maximum(np.where(size[other] > 0, sure[other], sure[given]), 0.5)
    for_it = 1 - wrong >= np.maximum(sure[given], 0.5)
    suspect = np.zeros(len(wrong), dtype=bool)
    for one in np.flatnonzero(size):
        rows = np.flatnonzero(given == one)
        off, on = int(against[rows].sum()), int((for_it[rows] & ~against[rows]).sum())
        many = round(len(rows) * off / (off + on)) if off else 0
        worst = rows[np.argsort(-wrong[rows], kind="stable")[:many]]
        suspect[worst[wrong[worst] > 0.5]] = True
    return suspect


def _comparisons(feedback: Sequence[Feedback], pairs: Comparisons, text_cap: int) -> tuple[_Said, _Said]:
    """Comparisons, and edits: the edited text should be better. One text model serves both."""
    votes = pairs.take(pairs.value != 0.5)
    first_won = votes.value == 1
    others, seen = np.zeros(len(votes)), _again(votes.unit)
    if seen.any():
        told = pair_truth(pairs).without(votes.unit, votes.annotator, first_won.astype(np.int64))
        others[seen] = (np.where(first_won, 1, -1) * _logit(told))[seen]
    edits = np.array([i for i, record in enumerate(feedback) if isinstance(record.judgement, Edit) and comparisons(record)], dtype=np.int64)
    record = np.concatenate([votes.record, edits])
    better = np.concatenate([np.where(first_won, votes.first_at, votes.second_at), np.ones_like(edits)])
    worse = np.concatenate([np.where(first_won, votes.second_at, votes.first_at), np.zeros_like(edits)])
    weight = np.concatenate([votes.weight, np.ones(len(edits))])
    known = lru_cache(maxsize=4096)(features)

    def row(vote: int) -> Features:
        texts = feedback[record[vote]].responses
        return better_than(known(texts[better[vote]]), known(texts[worse[vote]]))

    words, read = _words(feedback, record, row, weight, text_cap)
    alike, of_edits = np.zeros(len(votes), dtype=np.int64), np.zeros(len(edits), dtype=np.int64)
    split = len(votes)
    return (
        _Said(votes.record, votes.weight, alike, alike, others, words[:split], seen, read[:split]),
        _Said(edits, weight[split:], of_edits, of_edits, 0.0 * of_edits, words[split:], of_edits > 0, read[split:]),
    )


def _thumbs(feedback: Sequence[Feedback], votes: Votes, text_cap: int) -> _Said:
    up = votes.value.astype(np.int64)
    others, seen = np.zeros(len(votes)), _again(votes.unit)
    if seen.any():
        others[seen] = (np.where(up == 1, 1, -1) * _logit(thumbs_truth(votes).without(votes.unit, votes.annotator, up)))[seen]
    weight = np.ones(len(votes))
    words, read = _words(
        feedback, votes.record, lambda vote: as_said(features(feedback[votes.record[vote]].responses[0]), bool(up[vote])), weight, text_cap
    )
    return _Said(votes.record, weight, up, 1 - up, others, words, seen, read)


def _judge_ratings(ratings: Votes, found: list[Noise | None]) -> None:
    """Fill in the noise of each rating of what somebody else rated too.

    A mistaken rating is one that doesn't depend on what it rates: it comes from what its annotator gives on the whole. The share of
    mistakes in each data set and aspect is fitted by EM.
    """
    for group in np.unique(ratings.group):
        rows = np.flatnonzero(ratings.group == group)
        votes = ratings.take(rows[_again(ratings.unit[rows])])
        if not len(votes):
            continue
        unit, who = np.unique(votes.unit, return_inverse=True)[1], votes.annotator
        model = rating_noise(unit, who, votes.value)
        true, variance = model.without(unit, who, votes.value)
        gain, noise = model.gain[who], model.variance[who]
        off = votes.value - model.offset[who]
        mistaken = _normal_density(off, gain**2 + noise)
        meant = _normal_density(off - gain * true, gain**2 * variance + noise)
        share = 0.1
        for _ in range(200):
            wrong = share * mistaken / (share * mistaken + (1 - share) * meant + 1e-300)
            share = float(wrong.mean())
        for index, score in zip(votes.record.tolist(), wrong.tolist(), strict=True):
            found[index] = Noise(score, "others", score > 0.5)


def _normal_density(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-(difference**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))


def _words(
    feedback: Sequence[Feedback], record: np.ndarray, row: Callable[[int], Features], weight: np.ndarray, text_cap: int
) -> tuple[np.ndarray, np.ndarray]:
    """[N] log-odds by words and whether there are any; 0 for prompts beyond the cap, and where words tell nothing."""
    words = np.zeros(len(record))
    rows = np.arange(len(record))
    units = _independent([feedback[index] for index in record])
    if len(record) > text_cap:
        share = np.array([prompt_share(unit) for unit in units])
        rows = np.flatnonzero(share < text_cap / len(record))
    if len(rows):
        texts = Texts.of(row(int(vote)) for vote in rows)
        words[rows] = log_odds(texts, [units[vote] for vote in rows], weight[rows])
    return words, words != 0


def _independent(records: Sequence[Feedback]) -> list[Prompt]:
    """What each judgement shares with others that hang together with it: its prompt, or its first text where there are few prompts."""
    prompts: list[Prompt] = [record.prompt or min(record.responses) for record in records]
    return prompts if len(set(prompts)) >= FEWEST_PROMPTS else [min(record.responses) for record in records]


def _again(unit: np.ndarray) -> np.ndarray:
    """[N] whether another vote is about the same unit."""
    return np.asarray(np.bincount(unit)[unit] > 1) if len(unit) else np.zeros(0, dtype=bool)


def _logit(posteriors: np.ndarray) -> np.ndarray:
    """[N] log-odds of label 1 against label 0."""
    return np.asarray(np.log(posteriors[:, 1].clip(1e-12)) - np.log(posteriors[:, 0].clip(1e-12)))
