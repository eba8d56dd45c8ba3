"""stage=reward: train a reward model on feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import component_of, register
from rlhf_lightning.run import Run
from rlhf_lightning.stage.feedback import read, weighed

if TYPE_CHECKING:
    from rlhf_lightning.feedback.judgements import Judgements
    from rlhf_lightning.flow import Feedback
    from rlhf_lightning.reward.model import RewardModel


CORPUS = 20_000
"""Records that a tokenizer made on the spot is fitted to, at most."""


@dataclass
class TrainedReward:
    """A trained reward model, its history, what was held out, and (right, all) held-out comparisons by kind."""

    model: RewardModel
    history: list[dict[str, float]]
    held_out: Judgements
    accuracy: dict[str, tuple[int, int]]
    spearman: float | None


@register("stage", "reward")
def reward(run: Run) -> float:
    """Train a reward model on feedback of all kinds together; leaves the folder reward_model/. Returns the held-out accuracy."""
    from rlhf_lightning.evaluation.figures import accuracy_figures, curve, feedback_counts
    from rlhf_lightning.stage.ending import end

    with run.timed("read"):
        intake = read(run)
    run.say(f"{sum(intake.kept.values())} judgements: {', '.join(f'{n} {kind}' for kind, n in sorted(intake.kept.items()))}")
    trained = train_reward(run, intake.feedback, backbone_folder(run, intake.feedback), run.folder / "reward_model")
    figures = accuracy_figures(trained.accuracy, trained.spearman)
    end(
        run,
        "Reward model",
        figures=figures,
        curves=[curve("Loss", "step", "nats per judgement", {"loss": trained.history}, "reward/loss")],
        feedback=feedback_counts(intake),
        notes=intake.notes,
        results={f"accuracy/{kind}": right / total for kind, (right, total) in trained.accuracy.items()}
        | ({} if trained.spearman is None else {"spearman/rating": trained.spearman}),
    )
    run.say(f"reward model: {run.folder / 'reward_model'}")
    if "all" in trained.accuracy:
        return trained.accuracy["all"][0] / trained.accuracy["all"][1]
    return trained.spearman or 0.0


def backbone_folder(run: Run, feedback: Sequence[Feedback]) -> str:
    """Where the trunk is: the backbone's own path, or a folder of this run for one that is made on the spot."""
    node = run.config.backbone
    if "path" in node:
        return str(node.path)
    folder = run.folder / "backbone"
    sample = feedback[:CORPUS]
    language_model = run.language_model(corpus=[record.prompt_text + text for record in sample for text in record.responses])
    if run.is_main:
        language_model.save(folder)
    return str(folder)


def train_reward(run: Run, feedback: Sequence[Feedback], backbone: str, folder: Path, name: str = "reward") -> TrainedReward:
    """Train on the judgements of most prompts, measure on those of the others, normalise on the training responses, and save.

    Raises:
        ConfigError: too little feedback to hold some out, or a kind of judgement that no chosen loss learns from.
    """
    import torch

    from rlhf_lightning.datamodule import ShardedData
    from rlhf_lightning.feedback.judgements import split_by_prompt, standardised
    from rlhf_lightning.reward.losses import build_losses
    from rlhf_lightning.reward.model import ComposedScore, RewardModel, trunk_and_tokenizer
    from rlhf_lightning.reward.module import (
        RewardModule,
        check_kinds,
        check_pooling,
        feedback_loader,
        held_out_accuracy,
        learned_kinds,
        level_members,
        rating_spearman,
    )
    from rlhf_lightning.reward.parts import head_arguments, pooling_arguments

    settings = run.settings("reward")
    judged = standardised(weighed(run, feedback))
    losses = build_losses(run.config.get("reward_loss") or {}, judged)
    check_kinds(losses, judged)
    training, held_out = split_by_prompt(judged, settings.validation_fraction)
    if not training or not held_out:
        raise ConfigError(
            f"{len(judged)} judgements split by prompt into {len(training)} to learn from and {len(held_out)} held out: "
            "give feedback on more prompts, or change reward.validation_fraction"
        )
    with run.timed("reward"):
        torch.manual_seed(run.seed)
        trunk, tokenizer = trunk_and_tokenizer(backbone)
        width = trunk.config.get_text_config().hidden_size
        head = run.component("reward_head", *head_arguments(run.chosen("reward_head").name, width, judged.aspects))
        pooling = run.component("reward_pooling", *pooling_arguments(run.chosen("reward_pooling").name, width))
        limit = int(getattr(trunk.config, "max_position_embeddings", settings.max_length))
        net = ComposedScore(trunk, pooling, head)
        model = RewardModel(net, tokenizer, min(settings.max_length, limit))
        check_pooling(model)
        kinds = learned_kinds(losses)

        def loader(rank: int, world: int) -> Any:
            return feedback_loader(training, model, settings.batch_size, run.seed, rank, world, kinds)

        steps = settings.epochs * len(loader(0, 1))
        module = RewardModule(model, losses, settings, steps)
        trainer = run.trainer(name, settings.epochs, steps, {"reward/loss": "loss"}, settings.max_grad_norm)
        trainer.fit(module, ShardedData(loader))
        model.eval()
        texts = training.texts()
        level_members(model, texts)
        model.truncated = 0
        model.normalise([prompt for prompt, _ in texts], [response for _, response in texts])
        if model.truncated:
            run.say(f"{name}: {model.truncated} of {len(texts)} texts are longer than {model.max_length} tokens and lost their beginning")
        accuracy, spearman = held_out_accuracy(model, held_out), rating_spearman(model, held_out)
        about = described(run) | {
            "aspects": list(judged.aspects),
            "accuracy": {kind: right / total for kind, (right, total) in accuracy.items()},
        }
        run.save(trainer, folder, lambda target: model.save(target, about))
    return TrainedReward(model, module.history, held_out, accuracy, spearman)


def described(run: Run) -> dict[str, Any]:
    """Pooling and head by name and settings, for loading the model again."""
    head, pooling = run.config.reward_head, run.config.reward_pooling
    return {
        "head": component_of(head).name,
        "head_settings": settings_in(head),
        "pooling": component_of(pooling).name,
        "pooling_settings": settings_in(pooling),
    }


def settings_in(node: DictConfig) -> dict[str, Any]:
    """A component's settings as plain values, without its address."""
    content: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in content.items() if not key.startswith("_")}
