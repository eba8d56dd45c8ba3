"""A reward model's folder: safetensors, tokenizer, config, reward_model.json and README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.config.model_files import check_safetensors
from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.model.adapter_folder import FOLDER, AdapterFiles
from rlhf_lightning.model.adapters import merge_adapters
from rlhf_lightning.model.card import push_folder
from rlhf_lightning.model.checkpoint_tensors import save_model
from rlhf_lightning.model.loading import find_file, load_pretrained, load_tokenizer
from rlhf_lightning.model.trunk import CLASSIFIERS, clamp_length, load_config, load_trunk, trunk_kind, trunk_width
from rlhf_lightning.registry import make
from rlhf_lightning.reward.components import head_arguments, pooling_arguments
from rlhf_lightning.reward.model import LayoutName, RewardModel, foreign_layout, trained_layout
from rlhf_lightning.reward.net import ClassifierScore, ComposedScore
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.storage.canary import score_canary
from rlhf_lightning.reward.storage.card import DIVERGED, check_card, model_card, read_card
from rlhf_lightning.reward.storage.classifier import classifier_of
from rlhf_lightning.reward.storage.feature_folder import load_feature_score
from rlhf_lightning.tokenization.vocabulary import check_tokens

CARD, HEAD_WEIGHTS, README = "reward_model.json", "reward_head.safetensors", "README.md"
POOLING = "pooling."
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Patterns of the files that are downloaded from the Hub: never a pickle."""


def save_reward_model(
    model: RewardModel, folder: Path, metadata: Mapping[str, Any] | None = None, adapters: AdapterFiles | None = None
) -> None:
    """Write the folder of a reward model atomically.

    transformers loads a decoder with a linear head on the last token as AutoModelForSequenceClassification(num_labels=1), any other trunk
    as AutoModel: its classifiers of encoders and encoder-decoders have layers before the last one. LoRA's adapters are merged into the
    model's weights.

    Args:
        metadata: for the card: pooling and head with their settings, metrics of the training. Without it the model's own.
        adapters: those of the training, for a subfolder.
    """
    if metadata is not None:
        model.metadata, model.layout = dict(metadata), trained_layout(metadata)

    def write(target: Path) -> None:
        _write(model, target)
        if adapters is not None:
            adapters.write(target / FOLDER)

    write_folder(folder, write)


def push_reward_model(model: RewardModel, name: str, **options: Any) -> str:
    """Save a reward model to the Hub as `name`; returns its URL.

    Args:
        options: of `push_folder`, such as `private` and `token`.
    """
    with TemporaryDirectory() as folder:
        save_reward_model(model, Path(folder) / "model")
        return push_folder(Path(folder) / "model", name, **options)


def _write(model: RewardModel, target: Path) -> None:
    merge_adapters(model.net)
    net: Any = model.net
    exports = "trunk"
    constants: dict[str, Any] = {"mean": model.mean.item(), "deviation": model.deviation.item(), "max_length": model.max_length}
    if isinstance(net, ComposedScore):
        from safetensors.torch import save_file

        plain, obstacle = classifier_of(net, model.tokenizer, model.metadata)
        exports = "trunk" if obstacle else "classifier"
        save_model(plain, target)
        save_file(head_state(net), target / HEAD_WEIGHTS)
    elif isinstance(net, ClassifierScore):
        save_model(net.classifier, target)
        constants["net"] = exports = "classifier"
    model.tokenizer.save_pretrained(target)
    training = model.training
    card = {**model.metadata, **constants, "exports": exports, "canary": score_canary(model.eval())}
    model.train(training)
    (target / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False))
    kind = trunk_kind(net.trunk.config) if hasattr(net, "trunk") else "decoder"
    (target / README).write_text(model_card(card, kind))


def head_state(net: ComposedScore) -> dict[str, Tensor]:
    """The weights of the head by name, and those of the pooling, if any, as "pooling.<name>"."""
    state = dict(net.head.state_dict())
    if isinstance(net.pooling, nn.Module):
        state |= {POOLING + name: value for name, value in net.pooling.state_dict().items()}
    return {name: value.contiguous() for name, value in state.items()}


def load_head_state(net: ComposedScore, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of `head_state`."""
    net.head.load_state_dict({name: value for name, value in weights.items() if not name.startswith(POOLING)})
    if isinstance(net.pooling, nn.Module):
        net.pooling.load_state_dict({name.removeprefix(POOLING): value for name, value in weights.items() if name.startswith(POOLING)})


def load_head(net: nn.Module, path: str) -> None:
    """Give a net the trained head and pooling of a reward model's folder; a classifier has its own.

    Raises:
        ConfigError: the folder's head or pooling is of another kind or size.
    """
    from safetensors.torch import load_file

    file = Path(path) / HEAD_WEIGHTS
    if not isinstance(net, ComposedScore) or not file.is_file():
        return
    try:
        load_head_state(net, load_file(file))
    except RuntimeError as cause:
        raise ConfigError(f"{file}: the head doesn't fit reward_head, reward_pooling, or the feedback's aspects: {cause}") from cause


def load_reward_model(path: str, max_length: int = 512, layout: LayoutName = "auto", eos: bool | None = None) -> RewardModel:
    """Load a reward model, or any sequence classifier with one label, by folder or Hub name.

    Args:
        max_length: of a classifier without a card.
        layout, eos: layout of texts for a classifier without a card (`text_layout`).

    Raises:
        DataError: the folder or a file in it is missing, or the classifier has more than one label.
        ConfigError: a layout for a model with a card, or one that the classifier's tokenizer doesn't have.
    """
    card = _card(path)
    if card is not None:
        check_card(card, Path(path) / CARD)
        reject_layout(path, layout, eos)
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
        model.layout = trained_layout(card)
        model.metadata = {name: value for name, value in card.items() if name not in ("mean", "deviation", "max_length", "net")}
    return model


def load_any_reward_model(
    path: str, max_length: int = 512, layout: LayoutName = "auto", eos: bool | None = None
) -> RewardModel | FeatureScore:
    """Load a reward model of any kind: as `load_reward_model`, or a FeatureScore of reward_head=features."""
    model: RewardModel | FeatureScore
    if is_feature_score(path):
        reject_layout(path, layout, eos)
        model = load_feature_score(path)
    else:
        model = load_reward_model(path, max_length, layout, eos)
    model.name = f"the reward model {path}"
    return model


def reject_layout(path: str, layout: LayoutName, eos: bool | None) -> None:
    """Raise ConfigError for a layout given for a model of stage=reward, whose layout is fixed."""
    if layout != "auto" or eos is not None:
        raise ConfigError(
            f"{path} was written by stage=reward and reads texts as it was trained: leave out rollout_scorer.reward_model.layout and "
            "rollout_scorer.reward_model.eos, which are for classifiers of other programs"
        )


def is_feature_score(path: str) -> bool:
    """True for a folder written by reward_head=features, whose model has no tokenizer."""
    card = _card(path)
    return card is not None and card.get("head") == "features"


def held_out_by(path: str) -> str | None:
    """The unit that a saved model's training held out, "prompt" or "text"; None if it isn't recorded."""
    unit = (_card(path) or {}).get("held_out_by")
    return None if unit is None else str(unit)


def _load_composed(path: str, card: Mapping[str, Any]) -> RewardModel:
    from safetensors.torch import load_file

    weights = find_file(path, HEAD_WEIGHTS)
    if weights is None:
        raise DataError(f"{path} has {CARD} and no {HEAD_WEIGHTS}: copy or save the complete folder again")
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
        load_head_state(net, load_file(weights))
    except (RuntimeError, ValueError) as cause:
        reason = " ".join(str(cause).split())
        raise DataError(f"{weights} doesn't fit the head and pooling that {CARD} names, or the model's width {width}: {reason}") from cause
    unfit = [name for name, value in head_state(net).items() if not value.isfinite().all()]
    if unfit:
        raise DataError(f"{weights} holds NaN or infinite numbers in {unfit[0]}: {DIVERGED}")
    return RewardModel(net, tokenizer, card["max_length"])


def load_classifier(path: str, **options: Any) -> ClassifierScore:
    """Load a transformers sequence classifier with one label and a pad token.

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


def download_reward_model(name: str, **options: Any) -> str:
    """Download a Hub model's safetensors, config and tokenizer; returns the folder.

    Args:
        options: of huggingface_hub.snapshot_download, such as `revision` and `token`.
    """
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name, allow_patterns=FILES, **options))


def _card(path: str) -> dict[str, Any] | None:
    file = find_file(path, CARD)
    return None if file is None else read_card(file)
