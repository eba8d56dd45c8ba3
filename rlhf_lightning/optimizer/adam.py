"""Adam, whose weight decay is part of the gradient."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from rlhf_lightning.optimization.parameters import Betas, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


@register("optimizer", "adam")
def adam(
    trained: TrainedParameters,
    *,
    betas: Betas | None = None,
    eps: PositiveFloat | None = None,
    weight_decay: NonNegativeFloat = 0.0,
    no_decay: tuple[NoDecay, ...] = (),
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015).

    Args:
        betas: decay rates of the two averages; null: as adamw's.
        eps: added to the divisor of a step; null: as adamw's.
        weight_decay: L2 penalty, added to the gradient.
        no_decay: parameters without weight decay: biases, norms, embeddings.
        amsgrad: divide by the largest second average so far (Reddi et al. 2018).
    """
    defaults = trained.defaults
    optimizer = torch.optim.Adam(
        trained.param_groups(weight_decay, no_decay),
        lr=trained.learning_rate,
        betas=defaults.betas if betas is None else betas,
        eps=defaults.eps if eps is None else eps,
        amsgrad=amsgrad,
        fused=trained.is_fused,
    )
    setattr(optimizer, "_step_supports_amp_scaling", False)  # as adamw's
    return optimizer
