"""AdamW and the shape of its learning rate."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.training.optimizer import adamw, check_steps


def rates(steps: int, **settings) -> list[float]:
    """The learning rate of each step, as a share of the setting, and the one after the last."""
    given = adamw([nn.Parameter(torch.zeros(1))], SFTSettings(learning_rate=0.5, **settings), steps)
    optimizer, schedule = given["optimizer"], given["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        schedule.step()
    return found


def test_it_rises_over_the_first_steps_and_stays():
    found = rates(20, learning_rate_schedule="constant", warmup_fraction=0.25)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 17])
    assert rates(20, learning_rate_schedule="constant", warmup_fraction=0.0) == pytest.approx([1.0] * 21)


def test_it_rises_and_falls_linearly_to_zero():
    found = rates(20, learning_rate_schedule="linear", warmup_fraction=0.25)
    assert found == pytest.approx([min(1.0, (i + 1) / 5) * (1 - i / 20) for i in range(21)])
    assert found.index(max(found)) == 4
    assert found[20] == 0
    falls = [a - b for a, b in itertools.pairwise(found[4:])]
    assert falls == pytest.approx([1 / 20] * 16)
    assert rates(4, learning_rate_schedule="linear", warmup_fraction=0.0) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_few_steps_all_learn(schedule):
    assert rates(1, learning_rate_schedule=schedule, warmup_fraction=0.1)[0] == 1.0
    assert all(rate > 0 for rate in rates(3, learning_rate_schedule=schedule, warmup_fraction=0.9)[:3])


def test_only_what_is_trained_is_optimised_and_every_step_counts():
    trained, still = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1), requires_grad=False)
    given = adamw([trained, still], SFTSettings(weight_decay=0.03), 10)
    (group,) = given["optimizer"].param_groups
    assert group["params"] == [trained]
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.95), 0.03)
    assert isinstance(given["optimizer"], torch.optim.AdamW)
    assert given["lr_scheduler"]["interval"] == "step"


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
    with pytest.raises(ConfigError, match=r"in bfloat16, where a step of learning_rate=1e-05 changes 1[5-7]% of them"):
        adamw([nn.Parameter(before)], SFTSettings(learning_rate=learning_rate), 4)


def test_a_command_that_would_train_nothing_is_refused(world, command):
    sft = ["stage=sft", *world.task, *world.trained, *world.sizes]
    for words in ([*sft, "sft.learning_rate=1e-6"], world.ppo("ppo.learning_rate=1e-6", "ppo.self_checks=false")):
        done = command(*words, "backbone.dtype=bfloat16")
        assert done.code == 2
        assert "backbone.dtype=float32" in done.error
