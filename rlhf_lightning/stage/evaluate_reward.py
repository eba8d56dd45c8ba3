"""stage=evaluate_reward: measure and compare reward models on feedback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import load_feedback, with_weights

if TYPE_CHECKING:
    from rlhf_lightning.feedback.judgements import Judgements
    from rlhf_lightning.reward.evaluation.held_out import HeldOut
    from rlhf_lightning.reward.evaluation.measure import RewardAgreement


@register("stage", "evaluate_reward")
def evaluate_reward(run: Run, *, models: tuple[ModelPath, ...], prompts: Literal["all", "held_out"] = "all") -> float:
    """Measure reward models on feedback and their agreement; returns the mean accuracy.

    Without comparisons in the feedback that is the rank correlation with ratings, or the area under the curve of thumbs.

    Args:
        models: folders of stage=reward, or any AutoModelForSequenceClassification with one label, by folder or Hub name.
        prompts: "held_out" restricts them to those that stage=reward holds out, which depends on a prompt's text and
            reward.validation_fraction only: for models that were trained on this feedback. Texts are held out as by stage=reward.

    Raises:
        ConfigError: no model, a duplicate, or no feedback on held-out prompts.
    """
    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.report import reward as report
    from rlhf_lightning.report.policy import feedback_counts
    from rlhf_lightning.reward.storage.folder import is_feature_score
    from rlhf_lightning.stage._report import write_report

    if not models or len(set(models)) < len(models):
        raise ConfigError(f"stage.models=[{','.join(models)}] names {'a model twice' if models else 'no model'}: give each model once")
    with run.time_stage("read"):
        intake = load_feedback(run, [path for path in models if not is_feature_score(path)])
        judged = standardise(with_weights(run, intake.feedback))
    judged.by_text = len(set(judged.rows["prompt"].tolist())) == 1
    if prompts == "held_out":
        judged, note = held_out_part(judged, models, run.settings("reward").validation_fraction)
        intake.notes += [note] if note else []
    judged = judged.uniform_part()
    by_model, agreements = _measure_models(run, models, judged)
    first, several = next(iter(by_model.values())), len(models) > 1
    write_report(
        run,
        "Reward models on feedback" if several else "A reward model on feedback",
        metrics=report.reward_model_metrics(by_model) if several else report.reward_metrics(first),
        curves=report.reliability_curve(by_model),
        feedback=feedback_counts(intake),
        tables=report.models_tables(by_model, agreements) if several else report.held_out_tables(first),
        notes=intake.notes
        + [f"{name}: {note}" if several else note for name, held_out in by_model.items() for note in report.held_out_notes(held_out)],
        results={
            f"{name}/{metric}" if several else metric: value
            for name, held_out in by_model.items()
            for metric, value in held_out.metrics().items()
        },
    )
    return sum(held_out.objective for held_out in by_model.values()) / len(by_model)


def _measure_models(run: Run, models: tuple[str, ...], judged: Judgements) -> tuple[dict[str, HeldOut], list[RewardAgreement]]:
    """Measure each model, by short name, and the models' pairwise agreement on sampled texts."""
    from rlhf_lightning.reward.evaluation.measure import measure_held_out, reward_agreements, sample_texts
    from rlhf_lightning.reward.storage.folder import load_any_reward_model

    by_model, scores = {}, {}
    texts = sample_texts(judged, run.seed) if len(models) > 1 else []
    for name, path in zip(short_names(models), models, strict=True):
        with run.time_stage("measure"):
            model = load_any_reward_model(path).to(run.device_kind).eval()
            by_model[name] = measure_held_out(model, judged)
            scores[name] = model.score_texts([prompt for prompt, _ in texts], [response for _, response in texts])
    return by_model, reward_agreements(scores, texts) if len(models) > 1 else []


def held_out_part(judged: Judgements, models: Sequence[str], fraction: float) -> tuple[Judgements, str]:
    """The part of this feedback that stage=reward holds out, and a note if that isn't by prompt.

    Raises:
        ConfigError: nothing is held out.
    """
    from rlhf_lightning.feedback.split import split_judgements
    from rlhf_lightning.reward.storage.folder import held_out_by

    division = split_judgements(judged, fraction)
    held_out, note = division.held_out, division.note
    by_prompt = [path for path in models if held_out_by(path) == "prompt"]
    if division.by == "text" and by_prompt:  # such a model may have been trained on all texts of its training prompts
        held_out, note = judged.select(judged.rows["prompt"] / 2.0**64 < fraction), ""
    if not held_out:
        remark = f"; {by_prompt[0]} held out prompts, and may have learned from these" if by_prompt else ""
        raise ConfigError(
            f"reward.validation_fraction={fraction:g} holds out none of these prompts{remark}: give more, or write stage.prompts=all"
        )
    return held_out, note


def short_names(models: tuple[str, ...]) -> list[str]:
    """The models' paths without their common leading and trailing folders."""
    parts = [Path(model).parts for model in models]
    if len(parts) < 2:
        return list(models)
    longest = min(map(len, parts)) - 1
    starts = [len({part[i] for part in parts}) == 1 for i in range(longest)]
    first = starts.index(False) if False in starts else longest
    ends = [len({part[-1 - i] for part in parts}) == 1 for i in range(longest - first)]
    last = ends.index(False) if False in ends else longest - first
    return ["/".join(part[first : len(part) - last]) for part in parts]
