from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.rollout.shaping.clip_score import clip_score
from rlhf_lightning.rollout.shaping.missing_eos import missing_eos
from rlhf_lightning.rollout.shaping.normalise_score import NormaliseScore
from tests.fixtures.records import make_scored


def of(scores: list[float], **fields: Any) -> ScoredRollout:
    return make_scored(torch.ones(len(scores), 2), scores=torch.tensor(scores), **fields)


def test_a_batch_is_normalised_by_all_scores_so_far_and_clipped() -> None:
    shape = NormaliseScore(clip=1.0)
    first = shape(of([1.0, 3.0]))
    assert torch.allclose(first.scores, torch.tensor([-1.0, 1.0]) / 2**0.5)
    second = shape(of([8.0, 0.0, 3.0]))
    seen = torch.tensor([1.0, 3.0, 8.0, 0.0, 3.0])
    expected = (seen[2:] - seen.mean()) / seen.std()
    assert expected[0] > 1
    assert torch.allclose(second.scores, expected.clamp(-1.0, 1.0))
    assert torch.equal(second.rewards, torch.stack([torch.zeros(3), second.scores], dim=1))
    free = NormaliseScore(clip=None)
    free(of([1.0, 3.0]))
    assert torch.allclose(free(of([8.0, 0.0, 3.0])).scores, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
def test_the_statistics_are_those_of_all_scores_at_once(batches: list[list[float]], offset: float) -> None:
    shape = NormaliseScore()
    for batch in batches:
        shape(of([score + offset for score in batch]))
    seen = torch.tensor([score + offset for batch in batches for score in batch]).double()
    assert shape.count == len(seen)
    assert shape.mean == pytest.approx(seen.mean().item(), rel=1e-12, abs=1e-9)
    if len(seen) > 1 and seen.std() > 1.0:
        assert shape.std == pytest.approx(seen.std().item(), rel=1e-9)


def test_without_centring_the_sign_stays() -> None:
    shape = NormaliseScore(clip=None, centre=False)
    assert torch.allclose(shape(of([2.0, 4.0])).scores, torch.tensor([2.0, 4.0]) / 2**0.5)


@pytest.mark.parametrize("score", [0.1, -1234.56, 0.0])
def test_equal_scores_are_not_divided_by_rounding(score: float) -> None:
    shape = NormaliseScore()
    assert shape(of([score])).scores.abs() < 1e-9
    assert shape(of([score] * 6)).scores.abs().max() < 1e-9
    assert shape.std == 1.0


def test_it_resumes_where_it_was_and_half_precision_does_not_round_it() -> None:
    shape = NormaliseScore().to(torch.bfloat16)
    shape(of([1.0, 2.5, 4.0]))
    again = NormaliseScore().to(torch.bfloat16)
    again.load_state_dict(shape.state_dict())
    assert (again.count, again.mean, again.squares) == (shape.count, shape.mean, shape.squares) == (3.0, 2.5, 4.5)
    assert torch.equal(again(of([7.0, 1.0])).scores, shape(of([7.0, 1.0])).scores)


def test_scores_are_clipped_first_and_nothing_else_comes_before() -> None:
    clipped = clip_score(of([99.0, 0.0]), limits=(-1.0, 2.0))
    assert torch.allclose(NormaliseScore()(clipped).scores, torch.tensor([1.0, -1.0]) / 2**0.5)
    shape = NormaliseScore()
    with pytest.raises(ConfigError, match=r"rollout_shaping=\[normalise_score"):
        shape(missing_eos(of([1.0, 2.0], has_eos=torch.tensor([False, True]))))
    assert shape.count == 0, "what is refused isn't counted"


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 3e38])
def test_scores_that_cannot_be_squared_are_refused_and_not_counted(score: float) -> None:
    shape = NormaliseScore()
    if score == 3e38:
        assert shape(of([score, 0.0])).scores.isfinite().all(), "double precision squares any float32"
        return
    with pytest.raises(DataError, match="not numbers"):
        shape(of([score, 0.0]))
    assert shape.count == 0


@dataclass(kw_only=True)
class WithGreedyScores(ScoredRollout):
    baseline_scores: torch.Tensor | None = None


def test_greedy_scores_change_with_the_others_and_are_not_counted() -> None:
    given = WithGreedyScores(**{**vars(of([1.0, 3.0])), "baseline_scores": torch.tensor([2.0, 9.0])})
    shape = NormaliseScore(clip=3.0)
    shaped = shape(given)
    assert shape.count == 2
    assert torch.allclose(shaped.baseline_scores, torch.tensor([0.0, 3.0]))  # type: ignore[attr-defined]
    assert clip_score(given, limits=(0.0, 2.5)).baseline_scores.tolist() == [2.0, 2.5]  # type: ignore[attr-defined]


def test_it_is_an_option_with_settings() -> None:
    path = f"{NormaliseScore.__module__}.NormaliseScore"
    shape = registry.build({"_target_": path, "clip": None, "centre": False})
    assert (shape.clip, shape.centre) == (None, False)
    with pytest.raises(ConfigError, match="clip"):
        registry.build({"_target_": path, "clip": 0.0})
