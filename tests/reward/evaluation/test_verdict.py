"""The verdict on scores that learned nothing, length alone, one class, or the truth."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.reward.evaluation.outcomes import collect, held_out_metrics
from rlhf_lightning.reward.evaluation.verdict import Verdict

SEEDS = range(20)
N = 300


def judgements(kind: str, seed: int, up_share: float = 0.5) -> tuple[Judgements, dict[tuple[str, str], tuple[float, int]]]:
    """Judgements of texts with a hidden worth that is a little related to their length, and both by text."""
    rng = np.random.default_rng(seed)
    lengths, noise = rng.integers(5, 60, 2 * N), rng.normal(size=2 * N)
    worth = 0.05 * (lengths - 32) + noise
    texts = [f"{i:04d}" + "x" * int(length) for i, length in enumerate(lengths)]
    records = []
    for i in range(N):
        a, b = 2 * i, 2 * i + 1
        if kind == "comparison":
            order = (0, 1) if worth[a] > worth[b] else (1, 0)
            records.append(Feedback(prompt=f"p{i}", responses=(texts[a], texts[b]), judgement=Ranking(ranks=order)))
        elif kind == "rating":
            rating = float(np.clip(round(4 + worth[a]), 1, 7))
            records.append(Feedback(prompt=f"p{i}", responses=(texts[a],), judgement=Rating(value=rating, scale=(1, 7)), annotator="ben"))
        else:
            up = bool(worth[a] > np.quantile(worth, 1 - up_share)) if up_share < 1 else True
            records.append(Feedback(prompt=f"p{i}", responses=(texts[a],), judgement=Thumbs(up=up)))
    facts = {(f"p{i // 2}", text): (float(worth[i]), int(lengths[i])) for i, text in enumerate(texts)}
    return standardise(records), facts


def verdict(kind: str, score: str, seed: int, up_share: float = 0.5) -> Verdict:
    judged, facts = judgements(kind, seed, up_share)
    rng = np.random.default_rng(1000 + seed)
    by_kind = {
        "truth": lambda worth, length: worth + 0.5 * rng.normal(),
        "noise": lambda worth, length: rng.normal(),
        "length": lambda worth, length: float(length),
    }
    scores = {text: float(by_kind[score](*facts[text])) for text in judged.texts()}
    result = held_out_metrics(collect(judged, scores)).verdict
    assert result is not None
    return result


@pytest.mark.parametrize("kind", ["comparison", "rating", "thumbs"])
@pytest.mark.parametrize(("score", "level"), [("truth", "better"), ("noise", "chance"), ("length", "length")])
def test_twenty_of_twenty_models_get_the_right_verdict(kind: str, score: str, level: str):
    assert [verdict(kind, score, seed).level for seed in SEEDS] == [level] * len(SEEDS)


def test_thumbs_of_one_class_can_t_be_judged_and_a_rare_class_is_stated():
    assert [verdict("thumbs", "truth", seed, up_share=1.0).level for seed in SEEDS] == ["one class"] * len(SEEDS)
    rare = verdict("thumbs", "noise", 0, up_share=0.95)
    assert rare.level == "chance"
    assert "a constant answer is right on 9" in rare.sentence
    assert rare.text != rare.sentence  # it says what to try next


def test_few_judgements_are_unknown_and_turned_labels_are_worse_than_chance():
    judged, facts = judgements("comparison", 0)
    few = held_out_metrics(collect(judged[:8], {text: facts[text][0] for text in judged[:8].texts()})).verdict
    assert few is not None
    assert few.level == "unknown"
    turned = held_out_metrics(collect(judged, {text: -facts[text][0] for text in judged.texts()})).verdict
    assert turned is not None
    assert "worse than chance" in turned.sentence
