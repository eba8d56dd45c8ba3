from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.reinforce_pp_baseline import reinforce_pp_baseline


def test_the_group_gives_the_mean_and_the_tokens_of_the_batch_the_deviation(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]])
    scored = scored_of(mask, scores=torch.tensor([1.0, 5.0, 10.0, 20.0]), group=torch.tensor([4, 4, 2, 2]))
    made = reinforce_pp_baseline(scored)
    centred = torch.tensor([[-2.0] * 3, [2.0] * 3, [-5.0] * 3, [5.0] * 3])
    tokens = centred[mask.bool()]
    assert torch.allclose(made.advantages, (centred - tokens.mean()) / tokens.std() * mask, atol=1e-6)
    assert made.returns is None
