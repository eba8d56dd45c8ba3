"""Blind comparison of the new with the initial policy on held-out prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Feedback, Prompt, Ranking, prompt_text
from rlhf_lightning.rounds.artefacts import Group
from rlhf_lightning.statistics.intervals import Interval, clustered_proportion_interval

WIN, TIE, LOSS = 1.0, 0.5, 0.0


@dataclass(frozen=True)
class Pair:
    """Responses of both policies to a held-out prompt."""

    prompt: Prompt
    initial: str
    new: str

    @property
    def verdict(self) -> float | None:
        """The outcome that needs no judge: equal texts tie, and an empty response loses; None for the others."""
        if self.initial.strip() == self.new.strip():
            return TIE
        if not is_judgeable(self.new) or not is_judgeable(self.initial):
            return float(is_judgeable(self.new)) + TIE * (is_judgeable(self.new) == is_judgeable(self.initial))
        return None


def choose_pairs(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The first `count` pairs, each prompt's same two texts once."""
    distinct = {(prompt_text(pair.prompt), frozenset((pair.initial, pair.new))): pair for pair in reversed(pairs)}
    return [pair for pair in pairs if distinct[prompt_text(pair.prompt), frozenset((pair.initial, pair.new))] is pair][:count]


def is_judgeable(text: str) -> bool:
    """True for a response that isn't blank and that a file of feedback can store."""
    return bool(text.strip()) and "\0" not in text


def blind_questions(pairs: Sequence[Pair], seed: int) -> list[Group]:
    """The pairs that need a judge, each with its responses in random order."""
    generator = random.Random(seed)
    swaps = [generator.random() < 0.5 for _ in pairs]
    return [
        Group(prompt=pair.prompt, responses=(pair.new, pair.initial) if swap else (pair.initial, pair.new))
        for pair, swap in zip(pairs, swaps, strict=True)
        if pair.verdict is None
    ]


def win_rate(pairs: Sequence[Pair], answers: Sequence[Feedback], level: float) -> Interval:
    """The share of judgements that prefer the new policy; a tie counts half.

    The interval is clustered by prompt (`clustered_proportion_interval`): several annotators of a pair, and several pairs of a prompt, are
    dependent. An answer belongs to the pair of its prompt and its two responses.

    Raises:
        DataError: no pair has an outcome.
    """
    clusters = {text: number for number, text in enumerate(dict.fromkeys(prompt_text(pair.prompt) for pair in pairs))}
    by_texts = {(prompt_text(pair.prompt), frozenset((pair.initial, pair.new))): pair for pair in pairs if pair.verdict is None}
    outcomes = [(clusters[prompt_text(pair.prompt)], pair.verdict) for pair in pairs if pair.verdict is not None]
    for answer in answers:
        pair = by_texts.get((answer.prompt_text, frozenset(answer.responses)))
        outcome = None if pair is None else _outcome(answer, pair)
        if outcome is not None:
            outcomes.append((clusters[answer.prompt_text], outcome))
    if not outcomes:
        raise DataError("no judgement compares the new with the initial policy: the annotators must give rankings")
    return clustered_proportion_interval(np.array([value for _, value in outcomes]), [cluster for cluster, _ in outcomes], level)


def _outcome(answer: Feedback, pair: Pair) -> float | None:
    """1 if the new response is ranked first, 1/2 for a tie; None without both ranks."""
    if not isinstance(answer.judgement, Ranking):
        return None
    ranks = dict(zip(answer.responses, answer.judgement.ranks, strict=True))
    new, initial = ranks[pair.new], ranks[pair.initial]
    if new is None or initial is None:
        return None
    return TIE if new == initial else float(new < initial)
