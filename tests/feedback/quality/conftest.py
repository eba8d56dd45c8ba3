"""A simulated crowd: twenty annotators of known reliability who feel the same hidden utility, each with its own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from rlhf_lightning.flow import Feedback, Judgement, Ranking, Rating, Thumbs


@dataclass
class Crowd:
    """What was said, and each annotator's probability to put a random pair of responses in the right order."""

    feedback: list[Feedback]
    accuracy: dict[str, float]


Gather = Callable[..., Crowd]


def gather(
    kinds: Sequence[str],
    judgements: int,
    seed: int,
    *,
    annotators: int = 20,
    judges: int = 5,
    strictness: float = 0.5,
    thumb_spread: float = 0.0,
) -> Crowd:
    """A feeling is z + noise * N(0, 1), z ~ N(0, 1), so that two feelings are in the right order with p = 1/2 + atan(1 / noise) / pi;
    these p lie evenly from 0.55 to 0.95. Each unit is judged by `judges` annotators drawn at random, as often as gives each annotator
    about so many `judgements`, where a ranking of four counts as three. Ratings have an offset of their own (standard deviation
    `strictness`) and a gain."""
    rng = np.random.default_rng(seed)
    p = np.linspace(0.55, 0.95, annotators)
    rng.shuffle(p)
    noise = 1 / np.tan(np.pi * (p - 0.5))
    offset, gain = rng.normal(size=annotators), np.exp(0.2 * rng.normal(size=annotators))
    feedback = []
    units = judgements * annotators // judges
    for unit in range(units):
        kind = kinds[unit % len(kinds)]
        if kind == "ranking" and (unit // len(kinds)) % 3:
            continue
        size = {"pair": 2, "ranking": 4}.get(kind, 1)
        z = rng.normal(size=size)
        texts = tuple(f"answer {unit} {letter}" for letter in "abcd"[:size])
        for a in rng.choice(annotators, judges, replace=False):
            felt = z + noise[a] * rng.normal(size=size)
            judgement: Judgement
            if kind == "rating":
                value = float(np.clip(np.round(4 + gain[a] * felt[0] + strictness * offset[a]), 1, 7))
                judgement = Rating(value=value, scale=(1.0, 7.0))
            elif kind == "thumbs":
                judgement = Thumbs(up=bool(felt[0] + thumb_spread * offset[a] > 0))
            else:
                judgement = Ranking(ranks=tuple(int(rank) for rank in np.argsort(np.argsort(-felt))))
            order = rng.permutation(size)
            display_order = tuple(int(i) for i in np.argsort(order))
            feedback.append(
                Feedback(
                    prompt=f"question {unit}",
                    responses=texts,
                    judgement=judgement,
                    annotator=f"a{a:02d}",
                    positions=display_order,
                    origin=f"crowd.jsonl:{len(feedback) + 1}",
                )
            )
    return Crowd(feedback, {f"a{a:02d}": float(p[a]) for a in range(annotators)})


@pytest.fixture(name="gather")
def _gather() -> Gather:
    return gather
