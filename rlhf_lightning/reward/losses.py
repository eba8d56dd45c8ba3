"""The chosen reward losses, made for the judgements that they are to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import KINDS, Judgements
from rlhf_lightning.registry import Component, build, component_of


def build_losses(nodes: Mapping[str, Any], judged: Judgements) -> list[nn.Module]:
    """Each node's loss, given what it says at `register` that it needs, in this order:

    annotators: [A] how many judgements of the loss's own kinds each annotator gave; 0, the first, is nobody known.
    aspects: how many aspects there are, the whole response among them.

    Raises:
        ConfigError: a loss that needs anything else.
    """
    return [build(node, *_provided(component_of(node), judged)) for node in nodes.values()]


def _provided(component: Component, judged: Judgements) -> list[Any]:
    made: Any = component.target
    known: dict[str, Callable[[], Any]] = {
        "annotators": lambda: judgements_of_annotators(judged, made.kinds),
        "aspects": lambda: len(judged.aspects),
    }
    unknown = component.needs - known.keys()
    if unknown:
        raise ConfigError(f"reward_loss={component.name} needs {', '.join(sorted(unknown))}; a reward loss may need {', '.join(known)}")
    return [provide() for name, provide in known.items() if name in component.needs]


def judgements_of_annotators(judged: Judgements, kinds: tuple[str, ...]) -> torch.Tensor:
    """[A] the number of judgements of these kinds by annotator, whatever their weights."""
    of_kinds = np.isin(judged.rows["kind"], [KINDS.index(kind) for kind in kinds])
    return torch.from_numpy(np.bincount(judged.rows["annotator"][of_kinds], minlength=len(judged.annotators))).float()
