"""The sequence classifier of transformers with the scores of a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf_lightning.model.trunk import trunk_kind
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ClassifierScore, ComposedScore, is_linear_score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_lightning.reward.net import ComposedScore

SETTINGS = {"num_labels": 1, "problem_type": "regression", "id2label": {0: "score"}, "label2id": {"score": 0}}
"""Of its config: pipelines and vLLM apply no sigmoid to the logit of a regression."""


def classifier_of(net: ComposedScore, tokenizer: PreTrainedTokenizerBase, metadata: Mapping[str, Any]) -> tuple[PreTrainedModel, str]:
    """A classifier with the net's raw scores as its logit, and "".

    Where transformers' classifiers can't have them, the trunk, and the reason.

    Args:
        metadata: of the reward model, with the name of its pooling.
    """
    from transformers import AutoModelForSequenceClassification

    trunk, pooling = net.trunk, metadata.get("pooling")
    trunk.config.pad_token_id = tokenizer.pad_token_id
    if not isinstance(net.head, LinearHead):
        return trunk, f"reward_head={metadata.get('head')} is more than one linear layer: train with reward_head=linear"
    if pooling != "last":
        return trunk, f"reward_pooling={pooling}, and transformers' classifiers read the last token: train with reward_pooling=last"
    if trunk_kind(trunk.config) != "decoder":
        return trunk, f"classifiers of a {type(trunk).__name__} have more layers before the last one: train with backbone=causal"
    config = type(trunk.config).from_dict({**trunk.config.to_dict(), **SETTINGS, "pad_token_id": tokenizer.pad_token_id})
    try:
        with torch.device("meta"):  # its weights are replaced: neither memory nor random numbers for them
            classifier: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        return trunk, f"transformers has no classifier of a {type(trunk).__name__}"
    if not is_linear_score(classifier):
        return trunk, f"{type(classifier).__name__} has another head than one linear layer"
    setattr(classifier, classifier.base_model_prefix, trunk)
    classifier.score = net.head.weight
    return classifier, ""


def linear_score(model: RewardModel) -> tuple[PreTrainedModel, Tensor] | None:
    """Decoder and weight [D] of raw scores r = w·phi(x, y); None if the score is another function."""
    net = model.net
    if isinstance(net, ComposedScore) and isinstance(net.head, LinearHead) and model.metadata.get("pooling") == "last":
        return (net.trunk, net.head.weight.weight[0]) if trunk_kind(net.trunk.config) == "decoder" else None
    if isinstance(net, ClassifierScore) and is_linear_score(net.classifier):
        score: Tensor = net.classifier.score.weight[0]
        return net.trunk, score
    return None
