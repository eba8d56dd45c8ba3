"""Contracts of optimizers, schedules and callbacks."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rlhf_lightning.optimization.parameters import OptimizationDefaults, ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.testing.trial import Trial

STEPS = 10


def optimizer(trial: Trial) -> None:
    """Take the learning rates of the groups, lower a loss, and resume exactly."""
    model, again = network(), network()
    stepped = trial.make()(two_groups(model))
    assert {group["lr"] for group in stepped.param_groups} == {0.01, 0.02}
    losses = [descend(model, stepped) for _ in range(STEPS // 2)]
    resumed = trial.make()(two_groups(again))
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(stepped.state_dict()))
    for _ in range(STEPS // 2):
        losses.append(descend(model, stepped))
        assert descend(again, resumed) == losses[-1], "a resumed training takes other steps"
    assert losses[-1] < losses[0]


def schedule(trial: Trial) -> None:
    """Keep the learning rates in proportion, and resume exactly."""
    first, rates = rates_of(trial, STEPS)
    assert all(0 <= rate <= 0.01 for rate in rates)
    assert first[-1] == 2 * rates[-1]
    assert rates_of(trial, STEPS, stop=STEPS // 2)[1] == rates, "a resumed training has other learning rates"


def rates_of(trial: Trial, steps: int, stop: int | None = None) -> tuple[list[float], list[float]]:
    """The learning rate of each step in two groups, of a training that is resumed after `stop` steps."""
    rates: list[list[float]] = []
    made = torch.optim.SGD(two_groups(network()).param_groups(), lr=0.02)
    scheduler = trial.make()(made, steps, 0.1)
    for step in range(steps):
        if step == stop:
            states = copy.deepcopy((made.state_dict(), scheduler.state_dict()))
            made = torch.optim.SGD(two_groups(network()).param_groups(), lr=0.02)
            scheduler = trial.make()(made, steps, 0.1)
            made.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        rates.append([group["lr"] for group in made.param_groups])
        made.step()
        scheduler.step()
    return [both[0] for both in rates], [both[1] for both in rates]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(8, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3))


def two_groups(model: nn.Sequential) -> TrainedParameters:
    groups = [ParameterGroup("policy", trained_parameters(model[:2]), 0.02), ParameterGroup("critic", trained_parameters(model[2:]), 0.01)]
    return TrainedParameters(groups, OptimizationDefaults())


def descend(model: nn.Sequential, stepped: torch.optim.Optimizer) -> float:
    """The loss before one step."""
    loss = (model(torch.arange(8)) - 1.0).square().mean()
    stepped.zero_grad()
    loss.backward()
    stepped.step()
    return float(loss.detach())


def callback(trial: Trial) -> None:
    """Make a callback of Lightning's, whose state survives a checkpoint."""
    import lightning as L

    made, again = (trial.make() if trial.is_class else trial.make()() for _ in range(2))
    assert isinstance(made, L.Callback)
    again.load_state_dict(made.state_dict())
    assert again.state_dict() == made.state_dict()


CONTRACTS = {"optimizer": optimizer, "schedule": schedule, "callback": callback}
