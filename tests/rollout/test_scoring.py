"""A scorer as people write it: what is taken, what is refused with whose name, and what it can't change around itself."""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.rollout.scoring import checked_scores, scorer_name


class Scoring:
    """A scorer that returns what it is given."""

    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def __call__(self, rollout: Any) -> Any:
        return self.scores


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True),
        torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        [1.5, -2],
        (1.5, -2.0),
        np.array([1.5, -2.0], dtype=np.float16),
        [np.float32(1.5), np.int64(-2)],
        [torch.tensor(1.5), torch.tensor([-2])],
    ],
    ids=repr,
)
def test_numbers_of_any_kind_come_back_as_float32_without_a_gradient(scored_of, scores):
    found = checked_scores(Scoring(scores), scored_of(torch.ones(2, 3)))
    assert (found.tolist(), found.dtype, found.requires_grad) == ([1.5, -2.0], torch.float32, False)


@pytest.mark.parametrize("scores", [torch.tensor([True, False]), torch.tensor([1, 0]), [True, False], [1, False], np.array([True, False])])
def test_yes_and_no_are_1_and_0(scored_of, scores):
    assert checked_scores(Scoring(scores), scored_of(torch.ones(2, 3))).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("scores", [torch.tensor([1.0, math.nan]), [1, None], [1.0, math.nan], np.array([1.0, np.nan]), [1.0, np.nan]])
def test_nan_and_none_say_that_a_response_can_not_be_scored(scored_of, scores):
    found = checked_scores(Scoring(scores), scored_of(torch.ones(2, 3)))
    assert found[0] == 1.0
    assert found[1].isnan()


@given(st.lists(st.none() | st.floats(width=32, allow_infinity=False) | st.integers(-1000, 1000) | st.booleans(), min_size=1, max_size=6))
def test_a_list_is_the_tensor_of_its_numbers(scored_of, scores):
    found = checked_scores(Scoring(scores), scored_of(torch.ones(len(scores), 1)))
    expected = torch.tensor([math.nan if score is None else float(score) for score in scores])
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(3), r"scorer Scoring returned shape \[3\] for 2 responses; it must be \[2\]"),
        (torch.zeros(1), r"shape \[1\] for 2 responses"),
        (torch.zeros(0), r"shape \[0\] for 2 responses"),
        (torch.zeros(2, 1), r"shape \[2, 1\] for 2 responses"),
        (torch.tensor(0.0), r"shape \[\] for 2 responses"),
        (torch.zeros(2, dtype=torch.complex64), "returned complex numbers"),
        ([0.0], "scorer Scoring returned 1 scores for 2 responses"),
        ([0.0] * 3, "returned 3 scores for 2 responses"),
        ([], "returned 0 scores for 2 responses"),
        (np.zeros(1), "returned 1 scores for 2 responses"),
        (torch.tensor([float("-inf"), 0.0]), "returned -inf for the response 'response 0'"),
        ([0.0, float("inf")], "returned inf for the response 'response 1'"),
        ([0.0, 1e300], r"returned 1e\+300 for the response 'response 1'"),
        ([10**400, 0.0], "for the response 'response 0'"),
        (["0.5", 1.0], r"returned '0.5' \(str\) as score 0"),
        ([1.0, [1.0]], r"returned \[1.0\] \(list\) as score 1"),
        ([1.0, torch.zeros(2)], r"\(Tensor\) as score 1"),
        (np.zeros((2, 1)), r"returned \[0.0\] \(list\) as score 0"),
        ("ab", "must return a tensor or a list of 2 scores, not str"),
        ({0: 1.0, 1: 2.0}, "not dict"),
        (iter([1.0, 2.0]), "not list_iterator"),
        (0.5, "not float"),
        (None, "must return a tensor or a list of 2 scores, not NoneType"),
    ],
)
def test_anything_else_is_refused(scored_of, scores, message):
    with pytest.raises(UserError, match=message):
        checked_scores(Scoring(scores), scored_of(torch.ones(2, 3)))


def raising(rollout: Any, error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("of nothing"), torch.OutOfMemoryError("full"), SystemExit(3), StopIteration(), RuntimeError("of nothing")]
)
def test_what_it_raises_is_told_with_its_place_and_its_cause(scored_of, error):
    scorer = partial(raising, error=error)
    with pytest.raises(UserError, match=rf"scorer raising raised {type(error).__name__}: {error} \(given 2 responses, the first") as caught:
        checked_scores(scorer, scored_of(torch.ones(2, 3)))
    assert caught.value.__cause__ is error
    assert "in raising\n    raise error" in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("told already")])
def test_what_is_not_the_scorer_s_fault_passes_as_it_is(scored_of, error):
    with pytest.raises(type(error)) as caught:
        checked_scores(partial(raising, error=error), scored_of(torch.ones(2, 3)))
    assert caught.value is error


class Meddling:
    """Changes everything that it can reach, and then fails where it is told to."""

    def __init__(self, folder: Any, fails: bool) -> None:
        self.folder, self.fails = folder, fails

    def __call__(self, rollout: Any) -> list[float]:
        os.chdir(self.folder)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(True)
        rollout.response_mask.zero_()
        rollout.response_ids += 5
        rollout.responses.clear()
        rollout.prompts[:] = ["?"]
        if self.fails:
            sys.exit(1)
        return [1.0, 2.0]


@pytest.mark.parametrize("fails", [False, True])
def test_what_it_changes_around_it_is_put_back(scored_of, tmp_path, fails):
    rollout, folder = scored_of(torch.ones(2, 3)), os.getcwd()
    with torch.no_grad():
        try:
            assert checked_scores(Meddling(tmp_path, fails), rollout).dtype == torch.float32
        except UserError:
            assert fails
        assert not torch.is_grad_enabled()
    assert (os.getcwd(), torch.get_default_dtype()) == (folder, torch.float32)
    assert rollout.responses == ["response 0", "response 1"]
    assert rollout.prompts == ["prompt 0", "prompt 1"]
    assert rollout.response_mask.sum() == 6
    assert rollout.response_ids.sum() == 0


def test_a_message_names_the_function_behind_what_binds_its_settings():
    assert scorer_name(partial(partial(raising, error=None))) == "raising"
    assert scorer_name(Scoring(0)) == "Scoring"
    assert scorer_name(Scoring) == "Scoring"
