"""Every score is checked, and the message names the scorer and the response."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import UserError
from rlhf_lightning.rollout.scorer.scorer import checked_scores


class Scoring:
    """A scorer that returns what it is given."""

    def __init__(self, scores) -> None:
        self.scores = scores

    def __call__(self, rollout):
        return self.scores


def by_a_function(rollout):
    return torch.full((len(rollout),), float("nan"))


def test_finite_scores_come_back_as_float32_without_a_gradient(scored_of):
    rollout = scored_of(torch.ones(2, 3))
    for given in (torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True), torch.tensor([1.5, -2.0], dtype=torch.bfloat16)):
        scores = checked_scores(Scoring(given), rollout)
        assert (scores.tolist(), scores.dtype, scores.requires_grad) == ([1.5, -2.0], torch.float32, False)
    assert checked_scores(Scoring(torch.tensor([True, False])), rollout).tolist() == [1.0, 0.0]
    assert checked_scores(Scoring(torch.tensor([3, -1])), rollout).tolist() == [3.0, -1.0]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(3), r"scorer Scoring returned shape \[3\] for 2 responses; it must be \[2\]"),
        (torch.zeros(2, 1), r"shape \[2, 1\] for 2 responses"),
        (torch.tensor(0.0), r"shape \[\] for 2 responses"),
        (torch.tensor([0.0, float("nan")]), "scorer Scoring returned nan for the response 'response 1'"),
        (torch.tensor([float("-inf"), 0.0]), "returned -inf for the response 'response 0'"),
        ([0.0, 0.0], "must return a tensor of 2 scores, not list"),
        (None, "must return a tensor of 2 scores, not NoneType"),
    ],
)
def test_anything_else_is_refused(scored_of, scores, message):
    with pytest.raises(UserError, match=message):
        checked_scores(Scoring(scores), scored_of(torch.ones(2, 3)))


def test_a_function_is_named_too(scored_of):
    with pytest.raises(UserError, match="scorer by_a_function returned nan"):
        checked_scores(by_a_function, scored_of(torch.ones(2, 3)))
