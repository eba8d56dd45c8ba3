"""stage=reward: train a reward model on feedback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import component_of, make, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer, read, with_weights

if TYPE_CHECKING:
    from torch import nn

    from rlhf_lightning.feedback.judgements import Judgements, PromptResponse
    from rlhf_lightning.feedback.split import Split
    from rlhf_lightning.flow import Feedback, Prompt
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.reward.evaluation.held_out import HeldOut
    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.regression.feature_score import FeatureScore
    from rlhf_lightning.stage._planned_run import PlannedRun

    Truth = Callable[[Prompt, str], float]

CORPUS = 20_000
"""Records that a tokenizer made on the spot is fitted to, at most."""
REFERENCES = 10_000
"""Training texts by which scores are normalised, at most."""


@dataclass
class TrainedReward:
    """A trained reward model, its history, what it learned from and what was held out, and its metrics there."""

    model: RewardModel | FeatureScore
    history: list[dict[str, float]]
    division: Split
    measured: HeldOut
    doubt: str = ""

    @property
    def notes(self) -> list[str]:
        return [note for note in (self.division.note, self.doubt) if note]


def check_combination(choices: ComposedConfig) -> None:
    """Refuse a command without what the reward model is made of. Raises ConfigError."""
    choices.require("feedback_comment", "reward_head")
    choices.run_checks("feedback_source", "feedback_format", "feedback_filter", "reward_loss", "reward_feature")
    if "texts" not in choices.component_of("reward_head").needs:
        choices.require("backbone", "reward_pooling", "reward_tuning")


@register("stage", "reward", check=check_combination)
def reward(run: Run) -> float:
    """Train a reward model on feedback of all kinds together; leaves the folder reward_model/. Returns the held-out accuracy.

    Without comparisons held out that is the rank correlation with ratings, or the area under the curve of thumbs.
    """
    from rlhf_lightning.report.policy import curve, feedback_counts
    from rlhf_lightning.report.reward import held_out_notes, held_out_tables, reliability_curve, reward_metrics
    from rlhf_lightning.stage._report import end

    reads_texts = "texts" in run.component_of("reward_head").needs
    with run.time_stage("read"):
        intake = read(run, [] if reads_texts else backbone_tokenizer(run))
    run.log(f"{sum(intake.remaining.values())} judgements: {', '.join(f'{n} {kind}' for kind, n in sorted(intake.remaining.items()))}")
    backbone = "" if reads_texts else backbone_folder(run, intake.feedback)
    trained = train_reward(run, intake.feedback, backbone, run.folder / "reward_model")
    measured = trained.measured
    loss = [curve("Loss", "step", "nats per judgement", {"loss": trained.history}, "reward/loss")] if trained.history else []
    end(
        run,
        "Reward model",
        metrics=reward_metrics(measured),
        curves=[*loss, *reliability_curve({"the model": measured})],
        feedback=feedback_counts(intake),
        tables=held_out_tables(measured),
        notes=[*intake.notes, *trained.notes, *held_out_notes(measured)],
        results=measured.metrics(),
    )
    run.log(f"reward model: {run.folder / 'reward_model'}")
    return measured.objective


def backbone_folder(run: Run, feedback: Sequence[Feedback]) -> str:
    """Where the trunk is: the backbone's own path, or a folder of this run for one that is made on the spot."""
    node = run.config.backbone
    if "path" in node:
        return str(node.path)
    folder = run.folder / "backbone"
    sample = feedback[:CORPUS]
    language_model = run.language_model(corpus=[record.prompt_text + text for record in sample for text in record.responses])
    if run.is_rank_zero:
        language_model.save(folder)
    return str(folder)


def train_reward(
    run: Run,
    feedback: Sequence[Feedback],
    backbone: str,
    folder: Path,
    name: str = "reward",
    truth: Truth | None = None,
) -> TrainedReward:
    """Train on the judgements of most prompts (or texts), measure on those of the others, normalise on training responses, and save.

    Args:
        backbone: folder or Hub name of the trunk.
        name: of the training, for logs and the bar.
        truth: what a response is worth, where that is known: length is then measured at equal worth.

    Raises:
        ConfigError: too little feedback to hold some out, or a kind of judgement that no chosen loss learns from.
    """
    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.reward.losses import build_losses
    from rlhf_lightning.reward.module import check_kinds

    settings = run.settings("reward")
    judged = standardise(with_weights(run, feedback))
    division = divided(judged, settings.validation_fraction)
    if division.note:
        run.log(f"{name}: {division.note}")
    losses = build_losses(run.config.get("reward_loss") or {}, division.training)
    check_kinds(losses, judged)
    with run.time_stage("reward"):
        learn = fit_features if "texts" in run.component_of("reward_head").needs else tune_trunk
        return learn(run, backbone, folder, name, losses, division, truth)


def tune_trunk(
    run: Run,
    backbone: str,
    folder: Path,
    name: str,
    losses: Sequence[nn.Module],
    division: Split,
    truth: Truth | None,
) -> TrainedReward:
    """Pooling and head on a trunk, by Lightning."""
    import torch

    from rlhf_lightning.model.adapters import merge_adapters
    from rlhf_lightning.reward.evaluation.measure import measure_held_out
    from rlhf_lightning.reward.module import RewardModule, check_pooling, feedback_loader, learned_kinds
    from rlhf_lightning.reward.storage.folder import save_reward_model
    from rlhf_lightning.stage._training import on_training_device, train

    settings, training = run.settings("reward"), division.training
    torch.manual_seed(run.seed)
    model = begin(run, backbone, training.aspects)
    check_pooling(model)
    kinds = learned_kinds(losses)

    def loader(rank: int, world: int) -> Any:
        micro = settings.micro_batch_size
        return feedback_loader(training, model, settings.batch_size, run.seed, rank, world, kinds, micro)

    def build(steps: int) -> RewardModule:
        return RewardModule(model, losses, settings, steps, training.by_text)

    module, trainer = train(run, name, settings, loader, build, {"reward/loss": "loss"})
    merge_adapters(model.net)  # before anything is measured: the metrics are those of the weights that are saved
    with on_training_device(model, trainer):
        note = normalise(run, model, training, name, module.history)
        measured = measure_held_out(model, division.held_out, truth=truth)
    about = card_components(run) | card_data(backbone, division) | {"aspects": list(training.aspects), "metrics": measured.card()}
    run.save(trainer, folder, lambda target: save_reward_model(model, target, about))
    return TrainedReward(model, module.history, division, measured, note)


def fit_features(
    run: Run,
    backbone: str,
    folder: Path,
    name: str,
    losses: Sequence[nn.Module],
    division: Split,
    truth: Truth | None,
) -> TrainedReward:
    """The linear regression on named features: no trunk and no trainer; every process fits the same, the first writes it."""
    from rlhf_lightning.reward.evaluation.measure import measure_held_out
    from rlhf_lightning.reward.storage.feature_folder import save_feature_score

    features = {str(option): settings_in(node) for option, node in (run.config.get("reward_feature") or {}).items()}
    head, training = run.build("reward_head", features), division.training
    head.score.report_to(run.log)
    found = head.fit(training, losses)
    texts = reference_texts(training, run.seed)
    head.score.normalise([prompt for prompt, _ in texts], [response for _, response in texts])
    measured = measure_held_out(head.score, division.held_out, truth=truth)
    heaviest = ", ".join(f"{feature} {weight:+.2f}" for feature, weight in head.score.weights()[:8])
    run.log(f"{name}: {len(head.score.names)} features, {found}; heaviest: {heaviest}")
    about = card_data("", division) | {"losses": list(run.config.get("reward_loss") or {}), "metrics": measured.card()}
    if run.is_rank_zero:
        save_feature_score(head.score, folder, about)
    return TrainedReward(head.score, [], division, measured)


def divided(judged: Judgements, fraction: float, section: str = "reward") -> Split:
    """What to learn from, and what to measure on: no prompt is in both, or no text (feedback.split).

    Raises:
        ConfigError: one of them would be empty.
    """
    from rlhf_lightning.feedback.split import split_judgements

    division = split_judgements(judged, fraction)
    if not division.training or not division.held_out:
        raise ConfigError(
            f"{len(judged)} judgements are too few, or share too many texts, to learn from some and hold others out: give feedback on more "
            f"prompts or texts, or change {section}.validation_fraction={fraction:g}"
        )
    return division


def normalise(run: Run, model: RewardModel, training: Judgements, name: str, history: Sequence[Mapping[str, float]]) -> str:
    """Bring the scores of training responses to mean 0 and variance 1, and log how many of them are too long to be read in full.

    Returns:
        what makes the model doubtful, see `check_training`.

    Raises:
        UserError: the training diverged.
    """
    from rlhf_lightning.reward.evaluation.score_checks import check_training
    from rlhf_lightning.reward.module import center_ensemble_members

    texts = reference_texts(training, run.seed)
    center_ensemble_members(model, texts)
    model.truncated = model.rewritten = 0
    raw = model.normalise([prompt for prompt, _ in texts], [response for _, response in texts])
    if model.truncated:
        run.log(f"{name}: {model.truncated} of {len(texts)} texts are longer than {model.max_length} tokens and lost their beginning")
    if model.rewritten:
        run.log(f"{name}: the chat template drops a part of {model.rewritten} of {len(texts)} responses (such as their thoughts)")
    doubt = check_training(history, raw, name)
    if doubt:
        run.log(f"{name}: {doubt}")
    return doubt


def reference_texts(training: Judgements, seed: int) -> list[PromptResponse]:
    """The texts by which scores are normalised: all of them, or REFERENCES of a draw of the records."""
    import numpy as np

    generator = np.random.default_rng(seed)
    if len(training) > REFERENCES:
        training = training.select(np.sort(generator.permutation(len(training))[:REFERENCES]))
    texts = training.texts()
    if len(texts) <= REFERENCES:
        return texts
    return [texts[i] for i in np.sort(generator.permutation(len(texts))[:REFERENCES])]


def begin(run: Run, backbone: str, aspects: Sequence[str | None]) -> RewardModel:
    """The model to train: the trunk with the chosen pooling and head, or the classifier that the backbone is, tuned as chosen."""
    from rlhf_lightning.model.trunk import OPTION, clamp_length, load_trunk, trunk_width
    from rlhf_lightning.reward.components import head_arguments, pooling_arguments
    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.net import ComposedScore
    from rlhf_lightning.reward.storage.warm_start import warm_start

    chosen, pooling_name = run.component_of("backbone"), run.component_of("reward_pooling").name
    if "reading" in chosen.needs:
        trunk, tokenizer = make("backbone", chosen.name, {"path": backbone})([])
    else:
        kinds = [kind for kind, option in OPTION.items() if option == chosen.name]
        trunk, tokenizer = load_trunk(backbone, kinds[0] if kinds else "decoder")
    width = trunk_width(trunk)
    head = run.build("reward_head", *head_arguments(run.component_of("reward_head").name, width, aspects))
    pooling = run.build("reward_pooling", *pooling_arguments(pooling_name, width))
    net, note = warm_start(backbone, ComposedScore(trunk, pooling, head), pooling_name)
    if note:
        run.log(note)
    run.build("reward_tuning")(net.trunk)
    return RewardModel(net, tokenizer, clamp_length(net.trunk, run.settings("reward").max_length))


def card_components(run: Run) -> dict[str, Any]:
    """Pooling and head by name and settings, for loading the model again; what it was trained by, for its card."""
    head, pooling = run.config.reward_head, run.config.reward_pooling
    return {
        "head": component_of(head).name,
        "head_settings": settings_in(head),
        "pooling": component_of(pooling).name,
        "pooling_settings": settings_in(pooling),
        "tuning": run.component_of("reward_tuning").name,
        "losses": list(run.config.get("reward_loss") or {}),
    }


def card_data(backbone: str, division: Split) -> dict[str, Any]:
    """For the card: the start, where it has a name that means something elsewhere, counts of judgements by kind and by source, and by
    what was held out."""
    from rlhf_lightning.feedback.judgements import KINDS

    training = division.training
    sources: Counter[str] = Counter()
    chats = 0
    for judged in training:
        sources[judged.feedback.source or "not named"] += 1
        chats += not isinstance(judged.feedback.prompt, str)
    kinds = Counter(KINDS[kind] for kind in training.rows["kind"].tolist())
    start = None if Path(backbone).exists() else backbone
    held_out = {"held_out_by": division.by, "held_out_note": division.note}
    return {
        "backbone": start,
        "judgements": dict(kinds),
        "sources": dict(sources),
        "chats": chats,
        "texts": len(training) - chats,
        **held_out,
    }


def settings_in(node: DictConfig) -> dict[str, Any]:
    """A component's settings as plain values, without its address."""
    content: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in content.items() if not key.startswith("_")}


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan. Raises ConfigError for reward_head=features, a regression without phases."""
    from rlhf_lightning.reward.module import feedback_loader

    if "texts" in run.component_of("reward_head").needs:
        raise ConfigError("reward_head=features has no trunk: it is a regression on the features of the texts, and no plan is needed")
    settings, trunk = run.settings("reward"), run.reward_trunk()
    run.build("reward_tuning")(trunk)
    if run.has_feedback:
        training, reader = divided(run.inputs.judgements, settings.validation_fraction).training, run.reward_model(trunk)
        batches = run.texts(feedback_loader(training, reader, settings.batch_size, run.seed, 0, run.setup.world_size))
    else:
        batches = run.collected_texts(run.language_model(corpus=run.inputs.corpus), "reward", settings.batch_size)
    job = run.reward_job(trunk)
    return run.plan(job, job.supervised_phases(batches))
