from __future__ import annotations

import math
from typing import Any

import torch

from rlhf_lightning.policy.loss.gspo import gspo
from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean


def test_each_token_has_the_geometric_mean_ratio_of_its_row(experience_of: Any) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    log_probs = torch.tensor([[0.3, -0.1, 0.4], [-0.7, 9.0, 9.0]])
    per_token, _ = gspo(experience_of(mask, torch.ones(2, 3)), log_probs, clip_ratio=10.0, clip_ratio_high=10.0)
    assert torch.allclose(per_token[0], torch.full((3,), -math.exp(0.2)))
    assert torch.allclose(per_token[1, 0], torch.tensor(-math.exp(-0.7)))


def test_with_one_advantage_per_row_the_gradient_is_that_of_the_sequence_ratio(experience_of: Any) -> None:
    torch.manual_seed(0)
    mask = (torch.arange(5) < torch.tensor([5, 2, 3])[:, None]).long()
    advantages, log_probs = torch.tensor([[1.0], [-2.0], [0.5]]).expand(3, 5), (torch.randn(3, 5) / 9).requires_grad_()
    per_token, _ = gspo(experience_of(mask, advantages), log_probs, clip_ratio=0.9, clip_ratio_high=0.9)
    (ours,) = torch.autograd.grad(sequence_mean(per_token, mask), log_probs)
    sequence_ratio = ((log_probs * mask).sum(1) / mask.sum(1)).exp()
    (plain,) = torch.autograd.grad((-advantages[:, 0] * sequence_ratio).mean(), log_probs)
    assert torch.allclose(ours, plain, atol=1e-7)
