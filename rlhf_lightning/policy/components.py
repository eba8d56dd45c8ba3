"""What an iteration of PPO is assembled from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.rollout.sampling import Sampler
from rlhf_lightning.rollout.scoring import Scorer


class KLControl(Protocol):
    """Holds the KL coefficient and moves it after each update; an nn.Module, so that its state is in the checkpoint."""

    def value(self) -> float: ...

    def update(self, kl: float, responses: int) -> None: ...


@dataclass
class PPOParts:
    """The registered components that an iteration is assembled from, each with its settings bound.

    Attributes:
        held_out: scorers that nothing is trained on, by the name of the metric that their mean score is logged as.
        at_reference: whether training starts at the reference; False in a later round, whose reference is the first one's start.
        corrected: whether the loss corrects for what the sampler saw.
        greedy: draws the likeliest response, for an estimator that compares with its score.
        demonstrations: makes the loader of this rank, of so many, of what the policy must not unlearn (ppo.ptx_coef).
        log: shows a line to the user: the self-checks, an alarm.
    """

    sampler: Sampler
    scorer: Scorer
    shapings: Sequence[Callable[[ScoredRollout], ScoredRollout]]
    advantage: Callable[[ScoredRollout], Experience]
    loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    reduction: Callable[[Tensor, Tensor], Tensor]
    value_loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    kl_control: KLControl
    held_out: Mapping[str, Scorer] = field(default_factory=dict)
    at_reference: bool = True
    corrected: bool = False
    greedy: Sampler | None = None
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None
    log: Callable[[str], None] = lambda text: None
