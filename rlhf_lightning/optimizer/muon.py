"""Muon for the matrices of the layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.optimization.parameters import Beta, Betas, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers as one: they share their state and their parameter groups with it."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {"lr": learning_rate})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let both step."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.state = self.state
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]


@register("optimizer", "muon")
def muon(
    trained: TrainedParameters,
    *,
    momentum: Beta = 0.95,
    nesterov: bool = True,
    ns_steps: PositiveInt = 5,
    betas: Betas | None = None,
    eps: PositiveFloat | None = None,
    weight_decay: NonNegativeFloat | None = None,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024): steps that are orthogonal matrices.

    Of the matrices of the layers alone; embeddings, output layer, heads, biases and norms are trained by AdamW. Its steps are scaled to
    the size of Adam's (Liu et al. 2025), so that both take one learning rate.

    Args:
        momentum: decay rate of the average of gradients.
        nesterov: look ahead by the momentum.
        ns_steps: Newton-Schulz iterations of a step.
        betas: decay rates of AdamW's averages; null: as adamw's.
        eps: added to the divisor of AdamW's steps; null: as adamw's.
        weight_decay: fraction of a weight that a step at learning rate 1 removes; null: as adamw's.
        no_decay: parameters without weight decay: biases, norms, embeddings.
    """
    defaults, rate = trained.defaults, trained.learning_rate
    matrices = trained.param_groups(weight_decay, no_decay, lambda member: member.is_hidden_matrix)
    rest = trained.param_groups(weight_decay, no_decay, lambda member: not member.is_hidden_matrix)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(
            torch.optim.Muon(matrices, lr=rate, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw")
        )
    if rest:
        adam_betas, adam_eps = (defaults.betas if betas is None else betas), (defaults.eps if eps is None else eps)
        optimizers.append(torch.optim.AdamW(rest, lr=rate, betas=adam_betas, eps=adam_eps))
    return MuonWithAdamW(optimizers, rate)
