"""Stochastic gradient descent."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import Beta, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


@register("optimizer", "sgd")
def sgd(
    trained: TrainedParameters,
    *,
    momentum: Beta = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with momentum.

    A step is as large as the gradient, so that it takes larger learning rates than Adam.

    Args:
        momentum: fraction of the last step that the next one repeats.
        nesterov: look ahead by the momentum (Sutskever et al. 2013).
        weight_decay: L2 penalty, added to the gradient.
        no_decay: parameters without weight decay: biases, norms, embeddings.

    Raises:
        ConfigError: nesterov without momentum.
    """
    if nesterov and not momentum:
        raise ConfigError("optimizer.nesterov=true looks ahead by the momentum: give it, as in optimizer.momentum=0.9")
    groups = trained.param_groups(weight_decay, no_decay)
    return torch.optim.SGD(groups, lr=trained.learning_rate, momentum=momentum, nesterov=nesterov)
