"""The score layer of reward models that are linear on a decoder's last token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rlhf_lightning.model.trunk import trunk_kind
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ClassifierScore, ComposedScore, is_linear_score

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def linear_score(model: RewardModel) -> tuple[PreTrainedModel, Tensor] | None:
    """Decoder and weight [D] of raw scores r = w·phi(x, y); None if the score is another function."""
    net = model.net
    if isinstance(net, ComposedScore) and isinstance(net.head, LinearHead) and model.metadata.get("pooling") == "last":
        return (net.trunk, net.head.weight.weight[0]) if trunk_kind(net.trunk.config) == "decoder" else None
    if isinstance(net, ClassifierScore) and is_linear_score(net.classifier):
        score: Tensor = net.classifier.score.weight[0]
        return net.trunk, score
    return None
