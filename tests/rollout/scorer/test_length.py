"""The soft punishment of DAPO, by hand."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rollout.scorer.length import LengthScorer


def test_scores_fall_linearly_beyond_the_limits(scored_of):
    lengths = torch.tensor([0, 1, 2, 4, 5, 6, 9])
    rollout = scored_of((torch.arange(9) < lengths[:, None]).long())
    scores = LengthScorer(shortest=2, longest=4, slack=4)(rollout)
    torch.testing.assert_close(scores, torch.tensor([-0.5, -0.25, 0.0, 0.0, -0.25, -0.5, -1.0]))


@pytest.mark.parametrize(("unit", "scores"), [("words", [0.0, -0.5]), ("characters", [-0.5, -1.0])])
def test_other_units(scored_of, unit, scores):
    rollout = scored_of(torch.ones(2, 1), responses=["ab", "a b  c"])
    assert LengthScorer(longest=1 if unit == "characters" else 2, slack=2, unit=unit)(rollout).tolist() == scores


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"shortest=5 is above rollout_scorer\.length\.longest=4"):
        LengthScorer(shortest=5, longest=4)
