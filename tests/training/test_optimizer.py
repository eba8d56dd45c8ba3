"""The optimizer and schedule of a training: what is trained at which rate, and the steps that half precision would lose."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import OptimizationDefaults, ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.training.optimizer import Optimization, check_steps


def trained_of(module: nn.Module, learning_rate: float = 0.1) -> TrainedParameters:
    return TrainedParameters([ParameterGroup("model", trained_parameters(module), learning_rate)], OptimizationDefaults())


def test_only_what_is_trained_is_optimised_and_every_step_counts():
    module = nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    configured = Optimization().configure(trained_of(module), 10)
    (group,) = configured["optimizer"].param_groups
    assert group["params"] == [module.bias]
    assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.9, 0.95), 0.01, 1e-8)
    assert isinstance(configured["optimizer"], torch.optim.AdamW)
    assert configured["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize(("learning_rate", "fine"), [(1e-5, False), (1e-3, True)])
def test_half_precision_weights_that_would_stand_still_are_refused(learning_rate, fine):
    """What is refused is what Adam does: twenty of its steps leave most weights as they were."""
    torch.manual_seed(0)
    weight = nn.Parameter((0.02 * torch.randn(200, 200)).bfloat16())
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW([weight], lr=learning_rate)
    for _ in range(20):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert bool((weight != before).float().mean() > 0.5) is fine
    check_steps([nn.Parameter(before.float())], learning_rate)
    if fine:
        check_steps([nn.Parameter(before)], learning_rate)
        return
    layer = nn.Linear(200, 200, bias=False)
    layer.weight = nn.Parameter(before)
    with pytest.raises(ConfigError, match=r"in bfloat16, where a step of learning_rate=1e-05 changes 1[5-7]% of them"):
        Optimization().configure(trained_of(layer, learning_rate), 4)


def test_a_command_that_would_train_nothing_is_refused(world, command):
    sft = ["stage=sft", *world.task, *world.trained, *world.sizes]
    for words in ([*sft, "sft.learning_rate=1e-6"], world.ppo("ppo.learning_rate=1e-6", "ppo.self_checks=false")):
        done = command(*words, "backbone.dtype=bfloat16")
        assert done.code == 2
        assert "backbone.dtype=float32" in done.error
