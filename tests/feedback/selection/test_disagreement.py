"""feedback_selection=disagreement."""

from __future__ import annotations

import torch

from rlhf_lightning.feedback.selection.disagreement import disagreement


def test_gains_are_deviations_of_the_posterior_or_of_the_members(linear, ensemble):
    chosen = disagreement(linear, 3, torch.Generator())
    assert [choice.group for choice in chosen] == [0, 1, 2]
    torch.testing.assert_close(torch.tensor([choice.score for choice in chosen]), torch.tensor([2.0, 1.0, 0.5]))
    assert [choice.group for choice in disagreement(ensemble, 3, torch.Generator())] == [0, 2, 1]
