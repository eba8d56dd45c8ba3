"""Training of a reward model, for stage=reward and each round of stage=rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from rlhf_lightning.feedback.judgements import KINDS, Judgements, PromptResponse, standardise
from rlhf_lightning.feedback.split import Split
from rlhf_lightning.flow import Feedback, Prompt
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.adapter_folder import adapter_files
from rlhf_lightning.model.adapters import merge_adapters
from rlhf_lightning.model.load_options import load_options, restore_float32
from rlhf_lightning.model.trunk import OPTION, clamp_length, load_trunk, trunk_width
from rlhf_lightning.registry import component_of, make
from rlhf_lightning.reward.components import build_losses, head_arguments, pooling_arguments
from rlhf_lightning.reward.evaluation.held_out import HeldOut
from rlhf_lightning.reward.evaluation.measure import measure_held_out
from rlhf_lightning.reward.evaluation.score_checks import check_training
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.module import (
    RewardModule,
    center_ensemble_members,
    check_kinds,
    check_pooling,
    feedback_loader,
    learned_kinds,
)
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.storage.feature_folder import save_feature_score
from rlhf_lightning.reward.storage.folder import load_head, load_reward_model, save_reward_model
from rlhf_lightning.reward.storage.warm_start import warm_start
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import train_val_split, with_weights
from rlhf_lightning.stage._training import evaluated_size, on_device, train

MAX_REFERENCES = 10_000
"""Training texts by which scores are normalised."""
Utility = Callable[[Prompt, str], float]


@dataclass
class TrainedReward:
    """A trained reward model with its history, its data, and its metrics on held-out feedback.

    Attributes:
        warning: why the model is doubtful; empty for a sound one.
    """

    model: RewardModel | FeatureScore
    history: list[dict[str, float]]
    division: Split
    measured: HeldOut
    warning: str = ""

    @property
    def notes(self) -> list[str]:
        return [note for note in (self.division.note, self.warning) if note]


@dataclass(frozen=True)
class RewardTraining:
    """The inputs of one training.

    Attributes:
        name: for logs, checkpoints and the progress bar.
        backbone: folder or Hub name of the base model; empty for a regression on features.
        folder: of the trained model.
        utility: of a response, where it is known: the length bias is then measured at equal utility.
        saved: the ledger's entry of the training if the folder already has its model.
        is_warm: whether the backbone is a reward model whose head is trained further.
    """

    name: str
    backbone: str
    folder: Path
    losses: Sequence[nn.Module]
    division: Split
    utility: Utility | None = None
    saved: Mapping[str, Any] | None = None
    is_warm: bool = False


def train_reward(
    run: Run,
    feedback: Sequence[Feedback],
    backbone: str,
    folder: Path,
    name: str = "reward",
    utility: Utility | None = None,
    saved: Mapping[str, Any] | None = None,
    is_warm: bool = False,
) -> TrainedReward:
    """Train on most prompts' judgements, measure on the others, normalise the scores, and save.

    The arguments are those of `RewardTraining`.

    Raises:
        ConfigError: too little feedback to hold some out, or a kind of judgement that no chosen loss learns from.
    """
    judged = standardise(with_weights(run, feedback))
    division = train_val_split(judged, run.settings("reward").validation_fraction)
    if division.note:
        run.log(f"{name}: {division.note}")
    losses = build_losses(run.config.get("reward_loss") or {}, division.training)
    check_kinds(losses, judged)
    training = RewardTraining(name, backbone, folder, losses, division, utility, saved, is_warm)
    with run.time_stage("reward"):
        reads_texts = "texts" in run.component_of("reward_head").needs
        if reads_texts:
            return fit_features(run, training)
        return train_network(run, training) if saved is None else read_network(run, training)


def train_network(run: Run, training: RewardTraining) -> TrainedReward:
    """Train pooling and head on a base model by gradient descent."""
    settings, division, losses = run.settings("reward"), training.division, training.losses
    judged, kinds = division.training, learned_kinds(losses)
    torch.manual_seed(run.seed)
    model = build_reward_model(run, training.backbone, judged.aspects)
    if training.is_warm:
        load_head(model.net, training.backbone)
    check_pooling(model)

    def loader(rank: int, world: int) -> DataLoader[Any]:
        return feedback_loader(judged, model, settings.batch_size, run.seed, rank, world, kinds, settings.micro_batch_size)

    def held_out(rank: int, world: int) -> DataLoader[Any]:
        return feedback_loader(division.held_out, model, evaluated_size(settings, world).batch_size, run.seed, rank, world, kinds)

    def build(steps: int) -> RewardModule:
        return RewardModule(model, losses, settings, steps, judged.by_text)

    module, trainer = train(run, training.name, settings, loader, build, {"reward/loss": "loss"}, held_out)
    adapters = adapter_files(model.net.trunk)
    # Merged first, so that the metrics are those of the saved weights.
    restore_float32(model.net)
    merge_adapters(model.net)
    model.eval()
    with on_device(trainer.strategy.root_device, model):
        warning = normalise(run, model, judged, training.name, module.history)
        measured = measure_held_out(model, division.held_out, truth=training.utility)
    card = card_components(run) | card_data(training.backbone, division) | {"aspects": list(judged.aspects)} | measured.card()
    run.card = None
    run.save(trainer, training.folder, lambda target: save_reward_model(model, target, card, adapters))
    return TrainedReward(model, module.history, division, measured, warning)


def read_network(run: Run, training: RewardTraining) -> TrainedReward:
    """Read the model that an earlier attempt trained, and measure it again."""
    assert training.saved is not None
    model = load_reward_model(str(training.folder)).eval()
    run.model_folder, run.card = training.folder, None
    with on_device(run.process_device, model):
        measured = measure_held_out(model, training.division.held_out, truth=training.utility)
    return TrainedReward(model, [], training.division, measured, str(training.saved["warning"]))


def fit_features(run: Run, training: RewardTraining) -> TrainedReward:
    """Fit the linear regression on named features on all ranks; rank 0 writes it."""
    division = training.division
    features = {str(option): component_settings(node) for option, node in (run.config.get("reward_feature") or {}).items()}
    head = run.build("reward_head", features)
    head.score.report_to(run.log)
    summary = head.fit(division.training, training.losses)
    texts = reference_texts(division.training, run.seed)
    head.score.normalise([prompt for prompt, _ in texts], [response for _, response in texts])
    measured = measure_held_out(head.score, division.held_out, truth=training.utility)
    heaviest = ", ".join(f"{feature} {weight:+.2f}" for feature, weight in head.score.weights()[:8])
    run.log(f"{training.name}: {len(head.score.names)} features, {summary}; heaviest: {heaviest}")
    card = card_data("", division) | {"losses": list(run.config.get("reward_loss") or {})} | measured.card()
    run.model_folder = training.folder
    if run.is_rank_zero:
        save_feature_score(head.score, training.folder, card)
    return TrainedReward(head.score, [], division, measured)


def build_reward_model(run: Run, backbone: str, aspects: Sequence[str | None]) -> RewardModel:
    """Build the chosen pooling and head on a base model, or load a classifier, and apply reward_tuning."""
    chosen, pooling_name = run.component_of("backbone"), run.component_of("reward_pooling").name
    settings = loading_settings(run)
    options = load_options(
        settings.get("dtype", "float32"), settings.get("attn_implementation", "auto"), settings.get("quantization", "none")
    )
    if "reading" in chosen.needs:
        trunk, tokenizer = make("backbone", chosen.name, settings | {"path": backbone})([])
    else:
        kinds = [kind for kind, option in OPTION.items() if option == chosen.name]
        trunk, tokenizer = load_trunk(backbone, kinds[0] if kinds else "decoder", **options)
    width = trunk_width(trunk)
    head = run.build("reward_head", *head_arguments(run.component_of("reward_head").name, width, aspects))
    pooling = run.build("reward_pooling", *pooling_arguments(pooling_name, width))
    net, note = warm_start(backbone, ComposedScore(trunk, pooling, head), pooling_name, **options)
    if note:
        run.log(note)
    run.build("reward_tuning")(net.trunk)
    if settings.get("activation_checkpointing"):
        checkpoint_activations(net.trunk)
    return RewardModel(net, tokenizer, clamp_length(net.trunk, run.settings("reward").max_length))


def loading_settings(run: Run) -> dict[str, Any]:
    """The backbone's settings for a reward model's trunk; weights that are trained are in float32."""
    settings = component_settings(run.config.backbone)
    if "dtype" in settings and "pretrained" not in run.component_of("reward_tuning").needs:
        settings["dtype"] = "float32"
    return settings


def normalise(run: Run, model: RewardModel, judged: Judgements, name: str, history: Sequence[Mapping[str, float]]) -> str:
    """Normalise the scores of training responses to mean 0 and variance 1, and log truncated texts.

    Returns:
        why the model is doubtful (`check_training`); empty for a sound one.

    Raises:
        UserError: the training diverged.
    """
    texts = reference_texts(judged, run.seed)
    center_ensemble_members(model, texts)
    model.truncated = model.rewritten = 0
    raw = model.normalise([prompt for prompt, _ in texts], [response for _, response in texts])
    if model.truncated:
        run.log(f"{name}: {model.truncated} of {len(texts)} texts are longer than {model.max_length} tokens and lost their beginning")
    if model.rewritten:
        run.log(f"{name}: the chat template drops a part of {model.rewritten} of {len(texts)} responses (such as their thoughts)")
    warning = check_training(history, raw, name)
    if warning:
        run.log(f"{name}: {warning}")
    return warning


def reference_texts(judged: Judgements, seed: int) -> list[PromptResponse]:
    """The texts by which scores are normalised: all of them, or a random sample of MAX_REFERENCES."""
    generator = np.random.default_rng(seed)
    if len(judged) > MAX_REFERENCES:
        judged = judged.select(np.sort(generator.permutation(len(judged))[:MAX_REFERENCES]))
    texts = judged.texts()
    if len(texts) <= MAX_REFERENCES:
        return texts
    return [texts[i] for i in np.sort(generator.permutation(len(texts))[:MAX_REFERENCES])]


def card_components(run: Run) -> dict[str, Any]:
    """For the model card: pooling and head, from which the model is loaded again, and how it was trained."""
    head, pooling = run.config.reward_head, run.config.reward_pooling
    return {
        "head": component_of(head).name,
        "head_settings": component_settings(head),
        "pooling": component_of(pooling).name,
        "pooling_settings": component_settings(pooling),
        "tuning": run.component_of("reward_tuning").name,
        "losses": list(run.config.get("reward_loss") or {}),
    }


def card_data(backbone: str, division: Split) -> dict[str, Any]:
    """For the model card: the base model if it isn't a local folder, counts of judgements, and the split."""
    judged = division.training
    sources: Counter[str] = Counter()
    chats = 0
    for record in judged:
        sources[record.feedback.source or "not named"] += 1
        chats += not isinstance(record.feedback.prompt, str)
    kinds = Counter(KINDS[kind] for kind in judged.rows["kind"].tolist())
    return {
        "backbone": None if Path(backbone).exists() else backbone,
        "judgements": dict(kinds),
        "sources": dict(sources),
        "chats": chats,
        "texts": len(judged) - chats,
        "held_out_by": division.by,
        "held_out_note": division.note,
    }


def component_settings(node: DictConfig) -> dict[str, Any]:
    """A component's settings as plain values, without its address."""
    content: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in content.items() if not key.startswith("_")}
