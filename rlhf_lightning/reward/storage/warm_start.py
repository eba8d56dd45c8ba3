"""Warm start of a reward model from a sequence classifier with one label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf_lightning.model.trunk import load_config
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.net import is_linear_score
from rlhf_lightning.reward.storage.folder import load_classifier

if TYPE_CHECKING:
    from rlhf_lightning.reward.net import ComposedScore


def is_single_score(config: Any) -> bool:
    """True for the config of a saved AutoModelForSequenceClassification with one label."""
    architectures = getattr(config, "architectures", None) or []
    return config.num_labels == 1 and any(name.endswith("ForSequenceClassification") for name in architectures)


def warm_start(path: str, net: ComposedScore, pooling: str, **options: Any) -> tuple[nn.Module, str | None]:
    """The net to train, initialised from a classifier at `path` if it is one, and a note for the log.

    Without a classifier with one label: the net unchanged. With a linear head on the last token (GPT-2, Llama ...): the net, its linear
    head initialised with the classifier's weights. With another head (BERT's pooler, T5's dense layer ...): the classifier itself. The
    classifier's head is dropped if reward_head or reward_pooling choose something else.

    Args:
        path: folder or Hub name. pooling: the option's name.
        options: of from_pretrained.

    Raises:
        DataError: the classifier's tokenizer has no pad token.
    """
    if not is_single_score(load_config(path)):
        return net, None
    if not isinstance(net.head, LinearHead) or pooling != "last":
        return net, f"{path} is a classifier with one label; its head is dropped for the chosen reward_head and reward_pooling"
    score = load_classifier(path, **{"dtype": torch.float32, **options})
    if not is_linear_score(score.classifier):
        return score, f"{path} is a {type(score.classifier).__name__} with one label: it is trained as it is"
    with torch.no_grad():
        net.head.weight.weight.copy_(score.classifier.score.weight)
    return net, f"{path} is a classifier with one label: its score is trained further"
