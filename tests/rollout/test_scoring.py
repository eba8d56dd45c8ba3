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
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.rollout.scorer._columns import row_columns
from rlhf_lightning.rollout.scoring import WeightedScorers, checked_scores, concat_scores, score_responses, scorer_name


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


@settings(deadline=None)  # torch.testing is imported in the first call
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
def test_what_it_raises_is_reported_with_its_place_and_its_cause(scored_of, error):
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


NAN = math.nan


def test_several_scores_are_summed_by_weight_without_those_that_do_not_apply(scored_of):
    rollout = scored_of(torch.ones(3, 2))
    parts = {"a": Scoring([1.0, 2.0, None]), "b": Scoring(torch.tensor([10.0, NAN, NAN], dtype=torch.float64))}
    scorers = WeightedScorers(parts, {"a": 2.0, "b": -0.5})
    scores = score_responses(scorers, rollout)
    torch.testing.assert_close(scores.total, torch.tensor([-3.0, 4.0, NAN]), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(scores.components["b"], torch.tensor([10.0, NAN, NAN]), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(scorers(rollout), scores.total, rtol=0, atol=0, equal_nan=True)
    assert scores.rewards(rollout.response_mask)[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert scorer_name(scorers) == "a+b"
    halves = [score_responses(WeightedScorers({"a": Scoring([i])}, {"a": 2.0}), scored_of(torch.ones(1, 2))) for i in (1, 2)]
    whole = concat_scores(halves)
    assert (whole.total.tolist(), whole.components["a"].tolist(), whole.weights) == ([2.0, 4.0], [1.0, 2.0], {"a": 2.0})


def test_the_failing_one_of_several_is_named_by_its_option(scored_of):
    scorers = {"fine": Scoring([1, 2]), "second": partial(raising, error=ValueError("no")), "third": Scoring([1])}
    for names, message in ((("fine", "second"), "scorer second raised ValueError"), (("fine", "third"), "scorer third returned 1 scores")):
        chosen = WeightedScorers({name: scorers[name] for name in names}, dict.fromkeys(names, 1.0))
        with pytest.raises(UserError, match=message):
            checked_scores(chosen, scored_of(torch.ones(2, 3)))


def letters(ids: Any, mask: Any, prompts: Any) -> list[str]:
    """Each token is two letters."""
    return ["ab" * int(n) for n in mask.sum(1)]


def test_scorers_of_tokens_and_of_spans_mix_with_one_of_responses(scored_of):
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    rollout = scored_of(mask, responses=["ababab", "abab", "ab"])
    tokens = Scoring(torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 9.0], [NAN, 0.0, 0.0]]))
    spans = Scoring([[(0, 2, 1.0), (1, 3, -0.5)], [], None])
    scorers = WeightedScorers({"t": tokens, "s": spans, "r": Scoring([1.0, 2.0, 4.0])}, {"t": 1.0, "s": 10.0, "r": 0.1})
    scores = score_responses(scorers, rollout, letters)
    torch.testing.assert_close(scores.total, torch.tensor([6 + 5 + 0.1, 2 + 0.2, 0.4]))
    expected = torch.tensor([[11.0, -3.0, 3.1], [1.0, 1.2, 0.0], [0.4, 0.0, 0.0]])
    torch.testing.assert_close(scores.rewards(mask), expected)
    torch.testing.assert_close(score_responses(tokens, rollout).rewards(mask)[:2], torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]]))
    assert score_responses(spans, rollout).token_rewards is None, "without the tokenizer all is on the last token"
    with pytest.raises(UserError, match=r"scorer Scoring returned \[\(0, 9, 1\)\] .*list of \(start, end, value\).*test_scoring\.py:\d+"):
        score_responses(Scoring([[(0, 9, 1)], [], []]), rollout)


def test_columns_follow_their_rows(scored_of):
    rollout = scored_of(torch.ones(2, 3), columns={"answer": ["4", None], "level": [1, 2]})
    seen = []

    def scorer(rollout: Any) -> list[float]:
        seen.append(row_columns(rollout))
        rollout.columns["answer"].clear()
        return [0.0] * len(rollout)

    checked_scores(scorer, rollout.select(torch.tensor([1, 0, 0])))
    assert seen == [[{"answer": None, "level": 2}, {"answer": "4", "level": 1}, {"answer": "4", "level": 1}]]
    assert rollout.repeat(2).columns == {"answer": ["4", "4", None, None], "level": [1, 1, 2, 2]}
