"""The components of a PPO iteration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.rollout.sampling import Sampler
from rlhf_lightning.rollout.scoring import Scorer

Shaping: TypeAlias = Callable[[ScoredRollout], ScoredRollout]


class KLControl(Protocol):
    """The KL coefficient and its update rule; an nn.Module, for its state is in the checkpoint."""

    def value(self) -> float: ...

    def update(self, kl: float, responses: int) -> None: ...


@dataclass
class PPOComponents:
    """The registered components of a PPO iteration, each with its settings bound.

    Attributes:
        held_out: scorers for monitoring, by the metric of their mean score.
        starts_at_reference: whether policy and reference are equal at the start; False in later rounds.
        has_correction: whether the loss has a policy_correction.
        greedy: greedy sampler, for an estimator with a greedy baseline.
        demonstrations: makes the loader of (rank, world) for the ptx loss (ppo.ptx_coef).
        stop_alarms: names of the alarms that end the training (policy/alarms.py).
        log: shows a line to the user.
    """

    sampler: Sampler
    scorer: Scorer
    shapings: Sequence[Shaping]
    advantage: Callable[[ScoredRollout], Experience]
    loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    reduction: Callable[[Tensor, Tensor], Tensor]
    value_loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    kl_control: KLControl
    held_out: Mapping[str, Scorer] = field(default_factory=dict)
    starts_at_reference: bool = True
    has_correction: bool = False
    greedy: Sampler | None = None
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None
    stop_alarms: Sequence[str] = ()
    log: Callable[[str], None] = lambda text: None
