"""What the training of a reward model begins from, where its start is already a classifier that gives one score."""

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


def is_one_score(config: Any) -> bool:
    """The config is that of a saved AutoModelForSequenceClassification with one label."""
    made = getattr(config, "architectures", None) or []
    return config.num_labels == 1 and any(name.endswith("ForSequenceClassification") for name in made)


def begun(path: str, net: ComposedScore, pooling: str) -> tuple[nn.Module, str | None]:
    """The net to train, and what to tell about it.

    A start that isn't a classifier with one label: the net as it is. One whose head is a linear layer on the last token (GPT-2, Llama ...):
    the net, its linear head with the classifier's weights. One with another head (BERT's pooler, T5's dense layer ...): the classifier
    itself, trained as it is. Where reward_head or reward_pooling ask for something else, the classifier's head is left behind.

    Args:
        path: folder or Hub name of the start. pooling: the option's name.

    Raises:
        DataError: the classifier's tokenizer has no pad token.
    """
    if not is_one_score(load_config(path)):
        return net, None
    if not isinstance(net.head, LinearHead) or pooling != "last":
        return net, f"{path} is a classifier with one label; its head is left behind for the chosen reward_head and reward_pooling"
    score = load_classifier(path, dtype=torch.float32)
    if not is_linear_score(score.classifier):
        return score, f"{path} is a {type(score.classifier).__name__} with one label: it is trained as it is"
    with torch.no_grad():
        net.head.weight.weight.copy_(score.classifier.score.weight)
    return net, f"{path} is a classifier with one label: the training of its score goes on"
