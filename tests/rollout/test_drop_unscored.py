"""What can't be scored is left out of everything that is learned."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.errors import UserError
from rlhf_lightning.rollout.drop_unscored import drop_unscored

NAN = math.nan


def test_the_others_are_valued_as_if_it_had_never_been_drawn(scored_of):
    scores, group = torch.tensor([1.0, NAN, 4.0, 2.0, 0.0, NAN]), torch.tensor([0, 0, 0, 1, 1, 2])
    kept, said = drop_unscored(scored_of(torch.ones(6, 2), scores=scores, group=group), 0.5, "mine")
    known = torch.tensor([0, 2, 3, 4])
    alone = scored_of(torch.ones(4, 2), scores=scores[known], group=group[known])
    torch.testing.assert_close(grpo(kept).advantages, grpo(alone).advantages, rtol=0, atol=0)
    assert kept.responses == ["response 0", "response 2", "response 3", "response 4"]
    assert said == "scorer mine couldn't score 2 of 6 responses (NaN or None), as 'response 1'; they are left out (objective/unscorable)"


def test_where_all_are_scored_the_record_stays(scored_of):
    scored = scored_of(torch.ones(3, 2))
    assert drop_unscored(scored, 0.0, "mine") == (scored, "")


def test_a_response_without_a_baseline_can_not_be_learned_from(scored_of):
    scored = scored_of(torch.ones(3, 2))
    scored.baseline_scores = torch.tensor([0.0, NAN, 1.0])
    assert drop_unscored(scored, 0.5, "mine")[0].responses == ["response 0", "response 2"]


@pytest.mark.parametrize(
    ("rows", "lost", "most", "stops"),
    [(20, 2, 0.1, False), (20, 3, 0.1, True), (4, 1, 0.0, False), (4, 2, 0.0, True), (1, 1, 0.9, True), (4, 4, 0.99, True)],
)
def test_one_may_be_lost_a_share_may_be_lost_and_never_all(scored_of, rows, lost, most, stops):
    scores = torch.tensor([NAN] * lost + [1.0] * (rows - lost))
    scored = scored_of(torch.ones(rows, 1), scores=scores)
    if stops:
        with pytest.raises(UserError, match=rf"scorer mine couldn't score {lost} of {rows} responses .* as 'response 0': more than"):
            drop_unscored(scored, most, "mine")
    else:
        assert len(drop_unscored(scored, most, "mine")[0]) == rows - lost
