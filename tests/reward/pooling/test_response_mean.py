"""The mean over the response."""

from __future__ import annotations

import torch

from rlhf_lightning.registry import component_of
from rlhf_lightning.reward.pooling.response_mean import response_mean


def test_it_is_the_mean_of_what_it_is_given_and_asks_for_the_response():
    hidden = torch.randn(2, 4, 3)
    found = response_mean(hidden, torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0]]))
    assert torch.allclose(found[0], (hidden[0, 1] + hidden[0, 2]) / 2)
    assert not found[1].any()
    assert component_of({"_target_": f"{response_mean.__module__}.response_mean"}).needs == {"response"}
