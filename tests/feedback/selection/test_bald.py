"""feedback_selection=bald."""

from __future__ import annotations

import torch

from rlhf_lightning.feedback.selection.bald import bald
from rlhf_lightning.statistics.laplace import member_information


def test_gains_are_information_about_the_weights_or_about_which_member_is_right(linear, ensemble):
    assert [choice.group for choice in bald(linear, 1, torch.Generator())] == [0]
    chosen = bald(ensemble, 3, torch.Generator())
    assert [choice.group for choice in chosen] == [0, 2, 1]
    assert chosen[0].score == float(member_information(torch.tensor([[1.0], [-1.0]], dtype=torch.float64)))
