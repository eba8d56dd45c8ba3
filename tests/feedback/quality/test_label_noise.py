"""Planted label noise is found: where several judged the same, and by words alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rlhf_lightning.feedback.quality.label_noise import JudgementNoise, label_noise
from rlhf_lightning.flow import Comment, Edit, Feedback, Judgement, Ranking, Rating, Thumbs


def suspects(feedback: list[Feedback]) -> list[tuple[int, JudgementNoise]]:
    """Index and noise of the suspect judgements, highest score first."""
    noises = [(i, noise) for i, noise in enumerate(label_noise(feedback).judgements) if noise and noise.suspect]
    return sorted(noises, key=lambda item: (-item[1].score, item[0]))


def verdict(kind: str, right: bool) -> Judgement:
    return Ranking(ranks=(0, 1) if right else (1, 0)) if kind == "pair" else Thumbs(up=right)


def redundant(kind: str, seed: int, units: int = 300) -> tuple[list[Feedback], np.ndarray]:
    """Five of twelve annotators judge each unit, and one judgement in ten is turned round."""
    rng = np.random.default_rng(seed)
    truth = rng.random(units) < 0.5
    planted, feedback = [], []
    for unit in range(units):
        texts = (f"one {unit}", f"two {unit}") if kind == "pair" else (f"one {unit}",)
        for a in rng.choice(12, 5, replace=False):
            planted.append(rng.random() < 0.1)
            judgement = verdict(kind, bool(truth[unit]) ^ planted[-1])
            feedback.append(Feedback(prompt=f"q{unit}", responses=texts, judgement=judgement, annotator=f"a{a}"))
    return feedback, np.array(planted)


def worded(kind: str, seed: int, n: int = 2000) -> tuple[list[Feedback], np.ndarray]:
    """Everything is judged once. A text is worth the sum of its twelve words' hidden worth, over sqrt(12); texts of a pair differ by
    one standard deviation of a word at least, rated texts by half of one from the middle."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=150)
    planted, feedback = [], []
    while len(feedback) < n:
        words = rng.integers(150, size=(2, 12))
        score = worth[words].sum(1) / np.sqrt(12)
        if abs(score[0] - score[1]) < 1 or (kind == "thumbs" and abs(score[0]) < 0.5):
            continue
        texts = tuple(" ".join(f"w{w}" for w in one) for one in words)
        planted.append(rng.random() < 0.1)
        if kind == "edit":
            order = texts if (score[1] > score[0]) ^ planted[-1] else texts[::-1]
            feedback.append(Feedback(prompt=f"q{len(feedback)}", responses=order, judgement=Edit()))
        else:
            right = bool(score[0] > (score[1] if kind == "pair" else 0)) ^ planted[-1]
            feedback.append(
                Feedback(prompt=f"q{len(feedback)}", responses=texts[: 2 if kind == "pair" else 1], judgement=verdict(kind, right))
            )
    return feedback, np.array(planted)


def precision_and_recall(feedback: list[Feedback], planted: np.ndarray) -> tuple[float, float]:
    found = np.zeros(len(feedback), dtype=bool)
    found[[index for index, _ in suspects(feedback)]] = True
    return (found & planted).sum() / found.sum(), (found & planted).sum() / planted.sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["pair", "thumbs"])
def test_planted_noise_is_found_where_five_judged_the_same(kind: str, seed: int) -> None:
    precision, recall = precision_and_recall(*redundant(kind, seed))
    assert precision >= 0.8
    assert recall >= 0.8


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["pair", "edit", "thumbs"])
def test_planted_noise_is_found_by_words_alone(kind: str, seed: int) -> None:
    precision, recall = precision_and_recall(*worded(kind, seed))
    assert precision >= 0.8
    assert recall >= 0.8


@pytest.mark.parametrize("prompt", ["", "the only one"])
def test_words_tell_without_prompts_too(prompt: str) -> None:
    feedback, planted = worded("thumbs", seed=0)
    precision, recall = precision_and_recall([record.model_copy(update={"prompt": prompt}) for record in feedback], planted)
    assert precision >= 0.8
    assert recall >= 0.8


def test_scores_are_probabilities() -> None:
    """Where others say that the first response is the better one with probability p, it is in a share p."""
    feedback, planted = redundant("pair", 7, 4000)
    score = np.array([noise.score if noise else np.nan for noise in label_noise(feedback, text_cap=0).judgements])
    said_first = np.array([record.judgement.ranks[0] == 0 for record in feedback])  # type: ignore[union-attr]
    first, right = np.where(said_first, 1 - score, score), said_first ^ planted
    for low, high in ((0, 0.1), (0.3, 0.7), (0.9, 1)):
        rows = (first >= low) & (first <= high)
        assert rows.sum() > 500
        assert right[rows].mean() == pytest.approx(first[rows].mean(), abs=0.03)


def test_words_that_decide_nothing_make_no_suspects() -> None:
    feedback, _ = worded("pair", 0, 600)
    rng = np.random.default_rng(0)
    tossed = [record.model_copy(update={"judgement": verdict("pair", bool(rng.random() < 0.5))}) for record in feedback]
    assert suspects(tossed) == []


def test_agreement_makes_no_suspects() -> None:
    feedback = [
        Feedback(prompt=f"q{i}", responses=("x", "y"), judgement=Ranking(ranks=(0, 1)), annotator=f"a{a}")
        for i in range(30)
        for a in range(3)
    ]
    assert suspects(feedback) == []
    assert all(noise and noise.score < 0.05 and noise.route != "text" for noise in label_noise(feedback).judgements)


def test_what_nothing_is_known_of_has_no_score() -> None:
    feedback = [
        Feedback(prompt="a", responses=("x", "y"), judgement=Ranking(ranks=(0, 0)), annotator="ann"),
        Feedback(prompt="a", responses=("x", "y"), judgement=Ranking(ranks=(0, 1)), annotator="ann"),
        Feedback(prompt="a", responses=("x",), judgement=Thumbs(up=True)),
        Feedback(prompt="a", responses=("x",), judgement=Comment(text="fine")),
        Feedback(prompt="a", responses=("x",), judgement=Rating(value=1.0, scale=(0.0, 1.0))),
        Feedback(prompt="a", responses=("x", "x"), judgement=Edit()),
    ]
    found = label_noise(feedback)
    assert found.judgements == [None] * 6
    assert found.text_accuracy == {}
    assert label_noise([]).judgements == []


def test_a_ranking_turned_round_has_the_highest_score() -> None:
    feedback = []
    for i in range(40):
        for a in range(4):
            turned = (i, a) == (3, 2)
            ranks = (3, 2, 1, 0) if turned else (0, 1, 2, 3)
            feedback.append(Feedback(prompt=f"q{i}", responses=tuple("abcd"), judgement=Ranking(ranks=ranks), annotator=f"a{a}"))
    (index, noise), *rest = suspects(feedback)
    assert (index, rest) == (3 * 4 + 2, [])
    assert noise.score > 0.9


def test_ratings_made_without_looking_are_suspect_and_strict_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    offset = np.array([-1.0, 0.0, 1.0, 0.5, -0.5, 0.0])
    feedback, planted, clear = [], [], []
    for unit in range(200):
        true = 2 * rng.normal()
        for a in range(6):
            value = 5 + true + offset[a] + 0.4 * rng.normal()
            planted.append(bool(rng.random() < 0.03))
            clear.append(planted[-1] and abs(true) > 2)
            value = 10 - value if planted[-1] else value
            judged = Rating(value=float(np.clip(value, -5, 15)), scale=(-5.0, 15.0))
            feedback.append(Feedback(prompt=f"q{unit}", responses=("x",), judgement=judged, annotator=f"a{a}"))
    found = np.zeros(len(feedback), dtype=bool)
    found[[index for index, _ in suspects(feedback)]] = True
    assert (found & np.array(planted)).sum() >= 0.9 * found.sum()
    assert (found & np.array(clear)).sum() >= 0.8 * np.sum(clear)


def test_beyond_the_cap_words_say_nothing_and_others_do() -> None:
    feedback, _ = worded("pair", 1, 400)
    found = label_noise(feedback, text_cap=200).judgements
    assert 120 < sum(noise is not None for noise in found) < 280
    shared, planted = redundant("pair", 1, 50)
    assert all(noise and noise.route == "others" for noise in label_noise(shared, text_cap=0).judgements)
    assert len(planted) == len(shared)


def test_a_rare_class_is_not_suspect_for_being_rare():
    """Three thumbs down among 800, each with the same words as many that are up."""
    rng = random.Random(0)
    words = ["the", "boat", "sails", "over", "a", "quiet", "sea", "while", "old", "lamps", "glow", "near", "its", "harbour"]
    records = [
        Feedback(prompt=f"p{i}", responses=(" ".join(rng.choices(words, k=8)),), judgement=Thumbs(up=i not in (5, 300, 700)))
        for i in range(800)
    ]
    assert suspects(records) == []
