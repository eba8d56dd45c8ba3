"""Tables of scores beside judgements: the same metrics from parts as from all."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.reward.evaluation.outcomes import Outcomes, collect, concat, held_out_metrics


@pytest.fixture
def judged() -> Judgements:
    rng, records = random.Random(0), []
    for i in range(90):
        prompt, texts = f"prompt {rng.randrange(9)}", tuple(rng.sample(["a", "bb", "ccc", "dd d", "e e"], 4))
        if i % 3 == 0:
            records.append(Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=(0, 1, 1, 3)), source=rng.choice("xy")))
        elif i % 3 == 1:
            records.append(Feedback(prompt=prompt, responses=texts[:1], judgement=Rating(value=rng.randint(1, 7), scale=(1, 7))))
        else:
            records.append(Feedback(prompt=prompt, responses=texts[:1], judgement=Thumbs(up=rng.random() < 0.5)))
    return standardise(records)


def outcomes_of(part: Judgements) -> Outcomes:
    return collect(part, {text: math.sin(len(str(text))) for text in part.texts()}, lambda prompt, response: float(len(response)))


def test_tables_of_parts_are_those_of_all(judged):
    parts = [outcomes_of(judged.select(judged.rows["prompt"] % 3 == rank)) for rank in range(3)]
    joined, expected = concat(parts), outcomes_of(judged)
    for name in ("comparisons", "taus", "ratings", "thumbs", "texts"):
        assert sorted(map(str, getattr(joined, name))) == sorted(map(str, getattr(expected, name)))
        assert len(getattr(joined, name))
    assert held_out_metrics(joined, True).metrics() == pytest.approx(held_out_metrics(expected, True).metrics())
    for name, interval in held_out_metrics(expected).accuracy.items():
        found = held_out_metrics(joined).accuracy[name]
        assert (found.low, found.n) == pytest.approx((interval.low, interval.n))


def test_texts_judged_alone_are_clusters_of_their_own(judged):
    scores = {text: 0.5 for text in judged.texts()}
    by_text = collect(judged, scores, by_text=True)
    assert len(np.unique(by_text.texts["cluster"])) == len({response for _, response in judged.texts()})


def test_without_judgements_there_are_no_metrics():
    assert held_out_metrics(concat([])).metrics() == {}
    parts = [Outcomes(batch_change=0.1), Outcomes(batch_change=0.3)]
    assert concat(parts).batch_change == 0.3
