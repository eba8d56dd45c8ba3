"""feedback_selection=large_gap."""

from __future__ import annotations

import torch

from rlhf_lightning.feedback.selection.large_gap import large_gap
from rlhf_lightning.interfaces import SelectionPool


def test_the_widest_bound_comes_first(linear):
    chosen = large_gap(linear, 3, torch.Generator())
    assert [choice.group for choice in chosen] == [1, 0, 2]
    torch.testing.assert_close(torch.tensor([choice.score for choice in chosen]), torch.tensor([7.0, 4.2, 3.5]))


def test_every_prompt_once_before_any_twice(linear):
    pool = SelectionPool(groups=[("p", ["a", "b", "c"]), ("q", ["d", "e"])], features=linear.features[:5], scores=linear.scores[:5])
    assert sorted(choice.group for choice in large_gap(pool, 2, torch.Generator())) == [0, 1]
