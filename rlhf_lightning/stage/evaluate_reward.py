"""stage=evaluate_reward: what reward models are worth on feedback, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import read, with_weights

if TYPE_CHECKING:
    from rlhf_lightning.feedback.judgements import Judgements


@register("stage", "evaluate_reward")
def evaluate_reward(run: Run, *, models: tuple[ModelPath, ...], prompts: Literal["all", "held_out"] = "all") -> float:
    """Measure reward models on feedback and how far they agree; trains nothing. Returns the mean of their accuracies.

    Without comparisons in the feedback that is the rank correlation with ratings, or the area under the curve of thumbs.

    Args:
        models: folders of stage=reward, or any AutoModelForSequenceClassification with one label, by folder or Hub name.
        prompts: "held_out": those alone that stage=reward holds out, which depends on a prompt's text and reward.validation_fraction
            alone: for models that were trained on this very feedback. Texts are held out where stage=reward would hold out texts.

    Raises:
        ConfigError: no model, one named twice, or no feedback on prompts that are held out.
    """
    import torch

    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.report import reward as shown
    from rlhf_lightning.report.policy import feedback_counts
    from rlhf_lightning.reward.evaluation.measure import measure_held_out, reward_agreements, sample_texts
    from rlhf_lightning.reward.storage.folder import is_feature_score, load_any_reward_model
    from rlhf_lightning.stage._report import end

    if not models or len(set(models)) < len(models):
        raise ConfigError(f"stage.models=[{','.join(models)}] names {'a model twice' if models else 'no model'}: give each model once")
    with run.time_stage("read"):
        intake = read(run, [path for path in models if not is_feature_score(path)])
        judged = standardise(with_weights(run, intake.feedback))
    judged.by_text = len(set(judged.rows["prompt"].tolist())) == 1
    if prompts == "held_out":
        judged, note = held_out_part(judged, models, run.settings("reward").validation_fraction)
        intake.notes += [note] if note else []
    found, scores = {}, {}
    texts = sample_texts(judged, run.seed) if len(models) > 1 else []
    device = torch.device("cuda" if run.config.trainer.get("accelerator") in ("gpu", "cuda") else "cpu")
    for name, path in zip(short_names(models), models, strict=True):
        with run.time_stage("measure"):
            model = load_any_reward_model(path).to(device).eval()
            found[name] = measure_held_out(model, judged)
            scores[name] = model.score_texts([prompt for prompt, _ in texts], [response for _, response in texts])
    first, several = next(iter(found.values())), len(models) > 1
    notes = [f"{name}: {line}" if several else line for name, one in found.items() for line in shown.held_out_notes(one)]
    objective = sum(one.objective for one in found.values()) / len(found)
    end(
        run,
        "Reward models on feedback" if several else "A reward model on feedback",
        metrics=shown.reward_model_metrics(found) if several else shown.reward_metrics(first),
        curves=shown.reliability_curve(found),
        feedback=feedback_counts(intake),
        tables=shown.models_tables(found, reward_agreements(scores, texts)) if several else shown.held_out_tables(first),
        notes=[*intake.notes, *notes],
        results={f"{name}/{metric}" if several else metric: v for name, one in found.items() for metric, v in one.metrics().items()},
    )
    return objective


def held_out_part(judged: Judgements, models: Sequence[str], fraction: float) -> tuple[Judgements, str]:
    """What stage=reward holds out of this feedback, and a note where that isn't by prompt.

    Raises:
        ConfigError: nothing is held out.
    """
    from rlhf_lightning.feedback.split import split_judgements
    from rlhf_lightning.reward.storage.folder import held_out_by

    division = split_judgements(judged, fraction)
    held_out, note = division.held_out, division.note
    by_prompt = [path for path in models if held_out_by(path) == "prompt"]
    if division.by == "text" and by_prompt:  # such a model may have learned from all texts of its training prompts
        held_out, note = judged.select(judged.rows["prompt"] / 2.0**64 < fraction), ""
    if not held_out:
        which = f"; {by_prompt[0]} held out prompts, and may have learned from these" if by_prompt else ""
        raise ConfigError(
            f"reward.validation_fraction={fraction:g} holds out none of these prompts{which}: give more, or write stage.prompts=all"
        )
    return held_out, note


def short_names(models: tuple[str, ...]) -> list[str]:
    """The models' paths as short as they still differ: without the folders that all begin and all end with."""
    parts = [Path(model).parts for model in models]
    if len(parts) < 2:
        return list(models)
    most = min(map(len, parts)) - 1
    same = [len({part[i] for part in parts}) == 1 for i in range(most)]
    first = same.index(False) if False in same else most
    ends = [len({part[-1 - i] for part in parts}) == 1 for i in range(most - first)]
    last = ends.index(False) if False in ends else most - first
    return ["/".join(part[first : len(part) - last]) for part in parts]
