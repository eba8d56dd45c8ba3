"""AdamW, the default."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from rlhf_lightning.optimization.parameters import Betas, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


@register("optimizer", "adamw")
def adamw(
    trained: TrainedParameters,
    *,
    betas: Betas | None = None,
    eps: PositiveFloat | None = None,
    weight_decay: NonNegativeFloat | None = None,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        betas: decay rates of the two averages; null: 0.9 and 0.95, as language models are trained, and 0.9 and 0.999 in PPO.
        eps: added to the divisor of a step; null: 1e-8, and 1e-5 in PPO, as in its reference implementations
            (Huang et al. 2024, detail on Adam's epsilon).
        weight_decay: fraction of a weight that a step at learning rate 1 removes; null: 0.01 in sft and reward, 0 in preference and PPO.
        no_decay: parameters without weight decay: biases, norms, embeddings.
    """
    defaults = trained.defaults
    optimizer = torch.optim.AdamW(
        trained.param_groups(weight_decay, no_decay),
        lr=trained.learning_rate,
        betas=defaults.betas if betas is None else betas,
        eps=defaults.eps if eps is None else eps,
        fused=trained.is_fused,
    )
    # Nothing scales gradients on a CPU; Lightning's clipping under bf16-mixed takes a fused optimizer for one that unscales them.
    setattr(optimizer, "_step_supports_amp_scaling", False)
    return optimizer
