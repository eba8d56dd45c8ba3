"""Estimated reliability against the known reliability of simulated annotators."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from rlhf_lightning.feedback.quality.reliability import annotator_reliability, annotator_weights
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Thumbs


def rank_correlation(crowd) -> float:
    found = annotator_reliability(crowd.feedback)
    assert len(found) == len(crowd.accuracy)
    return float(spearmanr([one.combined for one in found], [crowd.accuracy[one.name] for one in found]).statistic)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kinds", [["pair"], ["ranking"], ["rating"], ["thumbs"], ["pair", "ranking", "rating", "thumbs"]])
def test_twenty_annotators_are_put_in_their_order(gather, kinds: list[str], seed: int) -> None:
    """With two hundred judgements each, five annotators to a unit, Spearman's correlation with the truth is at least 0.9."""
    assert rank_correlation(gather(kinds, 200, seed)) >= 0.9


def test_reliability_is_twice_the_probability_of_being_right_less_one(gather) -> None:
    for kind in ("pair", "ranking", "rating", "thumbs"):
        crowd = gather([kind], 400, 0)
        found = {one.name: one for one in annotator_reliability(crowd.feedback)}
        error = [found[name].combined - (2 * p - 1) for name, p in crowd.accuracy.items()]
        assert np.abs(np.mean(error)) < 0.08, kind
        assert np.abs(error).max() < 0.25, kind


def test_pairs_that_nobody_else_judged_count_by_their_responses() -> None:
    """Each pair of eight responses is judged once: what others said of the two in other pairs tells who is right."""
    rng = np.random.default_rng(0)
    p = rng.permutation(np.linspace(0.55, 0.95, 20))
    noise = 1 / np.tan(np.pi * (p - 0.5))
    feedback = []
    for question in range(80):
        z = rng.normal(size=8)
        for i, j in itertools.combinations(range(8), 2):
            a = rng.integers(20)
            felt = z[[i, j]] + noise[a] * rng.normal(size=2)
            ranks = (0, 1) if felt[0] > felt[1] else (1, 0)
            feedback.append(
                Feedback(prompt=f"q{question}", responses=(f"{i}", f"{j}"), judgement=Ranking(ranks=ranks), annotator=f"a{a:02d}")
            )
    found = annotator_reliability(feedback)
    assert all(one.overlap > 80 and one.agreement == {} for one in found)
    assert spearmanr([one.combined for one in found], p).statistic > 0.75


def test_one_who_says_the_opposite_and_one_who_says_anything_are_worth_nothing(gather) -> None:
    crowd = gather(["pair"], 100, 0)
    feedback = []
    rng = np.random.default_rng(0)
    for record in crowd.feedback:
        if record.annotator == "a00":
            record = record.model_copy(update={"judgement": Ranking(ranks=record.judgement.ranks[::-1])})
        if record.annotator == "a01":
            record = record.model_copy(update={"judgement": Ranking(ranks=(0, 1) if rng.random() < 0.5 else (1, 0))})
        feedback.append(record)
    found = {one.name: one.combined for one in annotator_reliability(feedback)}
    if crowd.accuracy["a00"] > 0.6:
        assert found["a00"] == 0
    assert found["a01"] < 0.25


def test_what_is_reported_of_an_annotator_by_hand() -> None:
    def thumbs(name: str, prompt: str, up: bool, seconds: float | None = None) -> Feedback:
        return Feedback(prompt=prompt, responses=("x",), judgement=Thumbs(up=up), annotator=name, seconds=seconds)

    feedback = [thumbs("ann", f"q{i}", i % 2 == 0, 1.0 + i) for i in range(4)]
    feedback += [thumbs("bob", f"q{i}", True) for i in range(4)]
    feedback += [thumbs("ann", "q0", False), Feedback(prompt="q", responses=("a", "b"), judgement=Edit(), annotator="cyd")]
    ann, bob, cyd = annotator_reliability(feedback)
    assert (ann.judgements, bob.judgements, cyd.judgements) == ({"thumbs": 5}, {"thumbs": 4}, {"edit": 1})
    assert (ann.median_seconds, bob.median_seconds) == (2.5, None)
    # Ann's five judgements meet Bob's four: equal on q0 (once of twice) and q2.
    assert ann.agreement == {"thumbs": pytest.approx(2 / 5)}
    assert (ann.habits.contradicts_itself, bob.habits.contradicts_itself) == (1.0, None)
    assert (bob.habits.up, ann.habits.up) == (1.0, 2 / 5)
    assert (cyd.combined, cyd.overlap, cyd.reliability, cyd.agreement) == (None, 0.0, {}, {})


def test_ratings_agree_by_correlation_with_the_others_mean() -> None:
    values = np.array([[1, 2, 4, 5, 3], [2, 2, 5, 4, 1], [1, 3, 3, 5, 5]], dtype=float)
    feedback = [
        Feedback(prompt=f"q{u}", responses=("x",), judgement=Rating(value=values[a, u], scale=(0.0, 5.0)), annotator=f"a{a}")
        for a, u in np.ndindex(3, 5)
    ]
    for a, one in enumerate(annotator_reliability(feedback)):
        others = np.delete(values, a, 0).mean(0)
        assert one.agreement["rating"] == pytest.approx(np.corrcoef(values[a], others)[0, 1])


def test_weights_have_mean_one_over_judgements_and_follow_reliability(gather) -> None:
    crowd = gather(["pair", "rating"], 100, 1)
    lonely = [Feedback(prompt=f"alone {i}", responses=("x",), judgement=Thumbs(up=True), annotator="zoe") for i in range(50)]
    weights = annotator_weights([*crowd.feedback, *lonely, crowd.feedback[0].model_copy(update={"annotator": None})])
    assert weights["zoe"] == 1
    assert sum(weights[record.annotator] for record in crowd.feedback) / len(crowd.feedback) == pytest.approx(1)
    names = sorted(crowd.accuracy)
    assert spearmanr([weights[name] for name in names], [crowd.accuracy[name] for name in names]).statistic > 0.9
    assert min(weights.values()) >= 0


def test_little_overlap_moves_a_weight_little(gather) -> None:
    crowd = gather(["pair"], 100, 2)
    target = next(record for record in crowd.feedback)
    newcomer = target.model_copy(update={"annotator": "new"})
    contrary = newcomer.model_copy(update={"judgement": Ranking(ranks=target.judgement.ranks[::-1])})
    for record in (newcomer, contrary):
        assert annotator_weights([*crowd.feedback, record])["new"] == pytest.approx(1, abs=0.15)


def test_without_names_or_overlap_every_weight_is_one() -> None:
    feedback = [Feedback(prompt=f"q{i}", responses=("x",), judgement=Thumbs(up=True), annotator=f"a{i % 3}") for i in range(9)]
    assert annotator_weights(feedback) == {"a0": 1.0, "a1": 1.0, "a2": 1.0}
    assert annotator_weights([record.model_copy(update={"annotator": None}) for record in feedback]) == {}
    assert annotator_reliability([]) == []


def test_the_order_of_feedback_changes_nothing(gather) -> None:
    crowd = gather(["pair", "rating", "thumbs"], 30, 3)
    one = annotator_reliability(crowd.feedback)
    shuffled = [crowd.feedback[i] for i in np.random.default_rng(0).permutation(len(crowd.feedback))]
    for a, b in zip(one, annotator_reliability(shuffled), strict=True):
        assert a.name == b.name
        assert a.combined == pytest.approx(b.combined, abs=1e-3)
        assert a.habits == b.habits
