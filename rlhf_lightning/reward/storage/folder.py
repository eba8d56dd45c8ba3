"""The folder of a reward model: safetensors, tokenizer, config, a card for programs (reward_model.json) and one for people (README.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.config.model_files import check_safetensors
from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.model.adapters import merge_adapters
from rlhf_lightning.model.loading import find_file, load_pretrained, load_tokenizer
from rlhf_lightning.model.saving import save_model
from rlhf_lightning.model.trunk import CLASSIFIERS, clamp_length, load_config, load_trunk, trunk_kind, trunk_width
from rlhf_lightning.registry import make
from rlhf_lightning.reward.components import head_arguments, pooling_arguments
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ClassifierScore, ComposedScore, is_linear_score
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.storage.canary import recorded
from rlhf_lightning.reward.storage.card import readme
from rlhf_lightning.reward.storage.card_schema import DIVERGED, check_card, read_card
from rlhf_lightning.reward.storage.feature_folder import load_feature_score
from rlhf_lightning.reward.text_layout import LayoutName, foreign_layout, own_layout
from rlhf_lightning.tokenization.vocabulary import check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD, HEAD_WEIGHTS, README = "reward_model.json", "reward_head.safetensors", "README.md"
POOLING = "pooling."
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What is fetched from the Hub: never a pickle."""


def write_reward_model(model: RewardModel, target: Path) -> None:
    """Fill a folder. transformers loads a decoder with a linear head on the last token as AutoModelForSequenceClassification(num_labels=1),
    any other trunk as AutoModel: transformers' own classifiers of encoders and encoder-decoders put layers of theirs before the last one.

    Adapters of LoRA are merged into the model's weights, which stay so.
    """
    merge_adapters(model.net)
    net: Any = model.net
    exports = "trunk"
    constants: dict[str, Any] = {"mean": model.mean.item(), "deviation": model.deviation.item(), "max_length": model.max_length}
    if isinstance(net, ComposedScore):
        from safetensors.torch import save_file

        plain = exported(net, model.tokenizer, model.about)
        exports = "trunk" if plain is net.trunk else "classifier"
        save_model(plain, target)
        save_file(parts_state(net), target / HEAD_WEIGHTS)
    elif isinstance(net, ClassifierScore):
        save_model(net.classifier, target)
        constants["net"] = exports = "classifier"
    model.tokenizer.save_pretrained(target)
    training = model.training
    card = {**model.about, **constants, "exports": exports, "canary": recorded(model.eval())}
    model.train(training)
    (target / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False))
    kind = trunk_kind(net.trunk.config) if hasattr(net, "trunk") else "decoder"
    (target / README).write_text(readme(card, kind))


def parts_state(net: ComposedScore) -> dict[str, Tensor]:
    """The weights of the head by their names, and those of a pooling that has some as "pooling.<name>"."""
    found = dict(net.head.state_dict())
    if isinstance(net.pooling, nn.Module):
        found |= {POOLING + name: value for name, value in net.pooling.state_dict().items()}
    return {name: value.contiguous() for name, value in found.items()}


def load_parts(net: ComposedScore, weights: Mapping[str, Tensor]) -> None:
    """Put what `parts_state` gave back."""
    net.head.load_state_dict({name: value for name, value in weights.items() if not name.startswith(POOLING)})
    if isinstance(net.pooling, nn.Module):
        net.pooling.load_state_dict({name.removeprefix(POOLING): value for name, value in weights.items() if name.startswith(POOLING)})


def exported(net: ComposedScore, tokenizer: PreTrainedTokenizerBase, about: Mapping[str, Any]) -> PreTrainedModel:
    """The trunk, inside a sequence classifier where one gives the same scores: a decoder's, with a linear head on the last token."""
    from transformers import AutoModelForSequenceClassification

    trunk = net.trunk
    trunk.config.pad_token_id = tokenizer.pad_token_id
    if not isinstance(net.head, LinearHead) or about.get("pooling") != "last" or trunk_kind(trunk.config) != "decoder":
        return trunk
    config = type(trunk.config).from_dict({**trunk.config.to_dict(), "num_labels": 1, "pad_token_id": tokenizer.pad_token_id})
    try:
        with torch.device("meta"):  # its weights are replaced: neither memory nor random numbers for them
            classifier: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError:  # transformers has no classifier of this architecture
        return trunk
    if not is_linear_score(classifier):
        return trunk
    setattr(classifier, classifier.base_model_prefix, trunk)
    classifier.score = net.head.weight
    return classifier


def load_reward_model(path: str, max_length: int = 512, layout: LayoutName = "auto", eos: bool | None = None) -> RewardModel:
    """A reward model from its folder, or any AutoModelForSequenceClassification with one label; by folder or Hub name.

    Args:
        max_length: of a classifier without a card.
        layout, eos: how a classifier without a card reads texts (`text_layout`).

    Raises:
        DataError: no such folder, a file of it missing, or a classifier with more than one label.
        ConfigError: a layout for a model with a card, or one that the classifier's tokenizer doesn't have.
    """
    card = _card(path)
    if card is not None:
        check_card(card, Path(path) / CARD)
        check_own_layout(path, layout, eos)
    if card is None or card.get("net") == "classifier":
        score = load_classifier(path)
        tokenizer = load_tokenizer(path, "reward model")
        check_tokens(score.classifier, tokenizer, f"reward model: {path!r}")
        model = RewardModel(score, tokenizer, clamp_length(score.trunk, max_length))
        model.layout = foreign_layout(tokenizer, score.input_format, layout, eos)
    else:
        model = _load_composed(path, card)
    if card is not None:
        model.max_length = int(card["max_length"])
        model.mean.fill_(card["mean"])
        model.deviation.fill_(card["deviation"])
        model.layout = own_layout(card)
        model.about = {name: value for name, value in card.items() if name not in ("mean", "deviation", "max_length", "net")}
    return model


def load_any_reward_model(
    path: str, max_length: int = 512, layout: LayoutName = "auto", eos: bool | None = None
) -> RewardModel | FeatureScore:
    """`load_reward_model`, or the features model of a folder that `reward_head=features` wrote."""
    model: RewardModel | FeatureScore
    if is_features_model(path):
        check_own_layout(path, layout, eos)
        model = load_feature_score(path)
    else:
        model = load_reward_model(path, max_length, layout, eos)
    model.name = f"the reward model {path}"
    return model


def check_own_layout(path: str, layout: LayoutName, eos: bool | None) -> None:
    """Reject a layout for a model of stage=reward, which reads texts as it was trained. Raises ConfigError."""
    if layout != "auto" or eos is not None:
        raise ConfigError(
            f"{path} was written by stage=reward and reads texts as it was trained: leave out rollout_scorer.layout and "
            "rollout_scorer.eos, which are for classifiers of other programs"
        )


def is_features_model(path: str) -> bool:
    """Whether the folder was written by reward_head=features, which reads texts without a tokenizer."""
    card = _card(path)
    return card is not None and card.get("head") == "features"


def held_out_by(path: str) -> str | None:
    """What the training of a reward model's folder held out: "prompt" or "text"; None where it isn't recorded."""
    found = (_card(path) or {}).get("held_out_by")
    return None if found is None else str(found)


def _load_composed(path: str, card: Mapping[str, Any]) -> RewardModel:
    from safetensors.torch import load_file

    weights = find_file(path, HEAD_WEIGHTS)
    if weights is None:
        raise DataError(f"{path} has {CARD} and no {HEAD_WEIGHTS}: copy or save the folder again, whole")
    check_safetensors(weights)
    trunk, tokenizer = load_trunk(path)
    width = trunk_width(trunk)
    try:
        aspects = card.get("aspects", [None])
        head = make("reward_head", card["head"], card.get("head_settings", {}), *head_arguments(card["head"], width, aspects))
        pooling = make("reward_pooling", card["pooling"], card.get("pooling_settings", {}), *pooling_arguments(card["pooling"], width))
    except UserError as fault:
        raise DataError(f"{Path(path) / CARD}: {fault}") from fault
    net = ComposedScore(trunk, pooling, head)
    try:
        load_parts(net, load_file(weights))
    except (RuntimeError, ValueError) as cause:
        reason = " ".join(str(cause).split())
        raise DataError(f"{weights} doesn't fit the head and pooling that {CARD} names, or the model's width {width}: {reason}") from cause
    unfit = [name for name, value in parts_state(net).items() if not value.isfinite().all()]
    if unfit:
        raise DataError(f"{weights} holds NaN or infinite numbers in {unfit[0]}: {DIVERGED}")
    return RewardModel(net, tokenizer, card["max_length"])


def load_classifier(path: str, **options: Any) -> ClassifierScore:
    """A transformers sequence classifier with one label, that knows its pad token.

    Args:
        options: of from_pretrained.

    Raises:
        DataError: it can't be loaded, has more labels, or neither it nor its tokenizer names a pad token.
    """
    from transformers import AutoModelForSequenceClassification

    config = load_config(path, "reward model")
    architecture = str(next(iter(getattr(config, "architectures", None) or []), ""))
    if architecture and not architecture.endswith(CLASSIFIERS):
        raise DataError(
            f"reward model: {path!r} is no reward model but a {architecture}, which gives no score: train one on it by stage=reward, or "
            "give the folder of a classifier with one label"
        )
    if config.num_labels != 1:
        raise DataError(f"{path} has {config.num_labels} labels; a reward model has one (num_labels=1 in its config.json)")
    classifier = load_pretrained(AutoModelForSequenceClassification, path, "reward model", **options)
    if classifier.config.pad_token_id is None:
        classifier.config.pad_token_id = load_tokenizer(path).pad_token_id
    if classifier.config.pad_token_id is None:
        raise DataError(f"{path}: its tokenizer has no pad token, by which transformers finds the last token; set one and save it again")
    return ClassifierScore(classifier)


def downloaded(path: str, **how: Any) -> str:
    """The folder itself, or the one into which a Hub model's safetensors, config and tokenizer are fetched."""
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download

    return str(snapshot_download(path, allow_patterns=FILES, **how))


def _card(path: str) -> dict[str, Any] | None:
    file = find_file(path, CARD)
    return None if file is None else read_card(file)
