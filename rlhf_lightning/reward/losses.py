"""Construction of the chosen reward losses for their judgements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.feedback.judgements import KINDS, Judgements
from rlhf_lightning.registry import Component, build, component_of


@runtime_checkable
class LearnsSlope(Protocol):
    """A loss of ratings that learns a slope of the score, whose square multiplies a regression's penalty."""

    def slopes(self, batch: JudgementBatch) -> torch.Tensor:
        """[M] each rating's factor on the score."""


def build_losses(nodes: Mapping[str, Any], judged: Judgements) -> list[nn.Module]:
    """Build each node's loss with the arguments that it registered as `needs`, in this order:

    annotators: [A] number of judgements of the loss's kinds per annotator; the first, 0, is for unknown ones.
    aspects: the number of aspects, the whole response included.

    Raises:
        ConfigError: a loss that needs anything else.
    """
    return [build(node, *_arguments(component_of(node), judged)) for node in nodes.values()]


def _arguments(component: Component, judged: Judgements) -> list[Any]:
    target: Any = component.target
    providers: dict[str, Callable[[], Any]] = {
        "annotators": lambda: judgements_of_annotators(judged, target.kinds),
        "aspects": lambda: len(judged.aspects),
    }
    unknown = component.needs - providers.keys()
    if unknown:
        raise ConfigError(f"reward_loss={component.name} needs {', '.join(sorted(unknown))}; a reward loss may need {', '.join(providers)}")
    return [provide() for name, provide in providers.items() if name in component.needs]


def judgements_of_annotators(judged: Judgements, kinds: tuple[str, ...]) -> torch.Tensor:
    """[A] the number of judgements of these kinds by annotator, whatever their weights."""
    of_kinds = np.isin(judged.rows["kind"], [KINDS.index(kind) for kind in kinds])
    return torch.from_numpy(np.bincount(judged.rows["annotator"][of_kinds], minlength=len(judged.annotators))).float()
