from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.policy.kl.none import NoKL


def test_neither_reward_nor_loss_pays(scored_of: Any, experience_of: Any) -> None:
    scored = scored_of(torch.ones(2, 3), kl_coef=1.0)
    assert NoKL().shape_rewards(scored) is scored
    assert NoKL().per_token_loss(experience_of(torch.ones(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3)) is None
