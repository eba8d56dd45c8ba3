"""Alpha from feedback, against the package on tables made by hand."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest

from rlhf_lightning.feedback.quality.agreement import agreement
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Thumbs

RNG = np.random.default_rng(0)


def expected(table: np.ndarray, level: str) -> float:
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))  # type: ignore[arg-type]


def test_each_kind_aspect_and_data_set_has_its_own() -> None:
    """Three raters of twenty texts; NaN where one judged nothing."""
    ratings = {
        (s, a): np.where(RNG.random((3, 20)) < 0.2, np.nan, RNG.integers(1, 6, (3, 20))) for s in ("one", "two") for a in ("x", None)
    }
    thumbs = RNG.integers(2, size=(3, 20))
    feedback = []
    for (source, aspect), table in ratings.items():
        for rater, unit in zip(*np.nonzero(~np.isnan(table)), strict=True):
            judgement = Rating(value=table[rater, unit], scale=(1.0, 5.0), aspect=aspect)
            feedback.append(Feedback(prompt=f"q{unit}", responses=("a",), judgement=judgement, annotator=f"r{rater}", source=source))
    for rater, unit in np.ndindex(thumbs.shape):
        judged = Thumbs(up=bool(thumbs[rater, unit]))
        feedback.append(Feedback(prompt=f"q{unit}", responses=("a",), judgement=judged, annotator=f"r{rater}", source="one"))
    found = {(one.data_set, one.kind, one.aspect): one for one in agreement(feedback)}
    assert len(found) == 5
    for (source, aspect), table in ratings.items():
        one = found[source, "rating", aspect or ""]
        assert one.alpha == pytest.approx(expected(table, "interval"), abs=1e-9)
        several = (~np.isnan(table)).sum(0) > 1
        assert (one.units, one.judgements) == (several.sum(), (~np.isnan(table[:, several])).sum())
    assert found["one", "thumbs", ""].alpha == pytest.approx(expected(thumbs, "nominal"), abs=1e-9)


def test_rankings_are_ordinal_by_response_and_pairs_nominal() -> None:
    order = np.stack([np.stack([RNG.permutation(4) for _ in range(15)]) for _ in range(3)])
    verdict = RNG.integers(3, size=(3, 15))
    feedback = []
    for rater, unit in np.ndindex(3, 15):
        ranks = tuple(int(rank) for rank in order[rater, unit])
        feedback.append(Feedback(prompt=f"q{unit}", responses=tuple("abcd"), judgement=Ranking(ranks=ranks), annotator=f"r{rater}"))
        two = {0: (0, 1), 1: (1, 0), 2: (0, 0)}[int(verdict[rater, unit])]
        feedback.append(Feedback(prompt=f"q{unit}", responses=("x", "y"), judgement=Ranking(ranks=two), annotator=f"r{rater}"))
    found = {one.kind: one for one in agreement(feedback)}
    assert found["ranking"].alpha == pytest.approx(expected(order.reshape(3, 60), "ordinal"), abs=1e-9)
    assert (found["ranking"].units, found["ranking"].annotators) == (60, 3)
    # Which of the two counts as the first depends on the prompt's texts alone, so the nominal value is the same up to that name.
    assert found["pair"].alpha is not None
    assert abs(found["pair"].alpha - expected(verdict, "nominal")) < 0.1
    assert found["ranking"].low is not None
    assert found["ranking"].low < found["ranking"].alpha < found["ranking"].high  # type: ignore[operator]


def test_only_what_several_named_annotators_judged_takes_part() -> None:
    up, down = Thumbs(up=True), Thumbs(up=False)
    feedback = [
        Feedback(prompt="a", responses=("x",), judgement=up, annotator="ann"),
        Feedback(prompt="a", responses=("x",), judgement=down, annotator="ann"),
        Feedback(prompt="a", responses=("x",), judgement=down),
        Feedback(prompt="b", responses=("x",), judgement=up, annotator="ann"),
        Feedback(prompt="b", responses=("x", "y"), judgement=Edit(), annotator="bob"),
    ]
    assert agreement(feedback) == []
    (one,) = agreement([*feedback, feedback[0].model_copy(update={"annotator": "bob"})])
    # Ann's first judgement counts, her second doesn't: both say up, and without variation there is no alpha.
    assert (one.units, one.judgements, one.annotators, one.alpha) == (1, 2, 2, None)
