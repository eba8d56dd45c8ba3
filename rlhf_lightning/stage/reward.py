"""stage=reward: train a reward model on feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._evaluation import LOSS, check_monitor
from rlhf_lightning.stage._feedback import backbone_tokenizer, load_feedback, log_counts, train_val_split

if TYPE_CHECKING:
    from rlhf_lightning.flow import Feedback
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.stage._planned_run import PlannedRun

MAX_CORPUS = 20_000
"""Records to which a new tokenizer is fitted."""


def check_combination(choices: ComposedConfig) -> None:
    """Require the components of a reward model. Raises ConfigError."""
    choices.require("feedback_comment", "reward_head")
    choices.run_checks("feedback_source", "feedback_format", "feedback_filter", "reward_loss", "reward_feature")
    if "texts" not in choices.component_of("reward_head").needs:
        choices.require("backbone", "reward_pooling", "reward_tuning", "optimizer", "schedule")
        choices.run_checks("callback")
    check_monitor(choices, LOSS)


@register("stage", "reward", check=check_combination)
def reward(run: Run) -> float:
    """Train a reward model on feedback of all kinds together; leaves the folder reward_model/.

    Returns:
        the accuracy on held-out comparisons; without any, the rank correlation with ratings, or the area under the curve of thumbs.
    """
    from rlhf_lightning.report.policy import curve, evaluation_curves, feedback_counts
    from rlhf_lightning.report.reward import held_out_notes, held_out_tables, reliability_curve, reward_metrics
    from rlhf_lightning.stage._report import write_report
    from rlhf_lightning.stage._reward_training import train_reward

    # Read the feedback, with the tokenizer of the model that will read its chats.
    has_backbone = "texts" not in run.component_of("reward_head").needs
    with run.time_stage("read"):
        intake = load_feedback(run, backbone_tokenizer(run) if has_backbone else [])
    log_counts(run, intake)
    # Train, and measure on held-out feedback.
    backbone = prepare_backbone(run, intake.feedback) if has_backbone else ""
    trained = train_reward(run, intake.feedback, backbone, run.folder / "reward_model")
    measured = trained.measured
    # Report.
    loss = [curve("Loss", "step", "nats per judgement", {"loss": trained.history}, "reward/loss")] if trained.history else []
    write_report(
        run,
        "Reward model",
        metrics=reward_metrics(measured),
        curves=[*loss, *evaluation_curves({"": trained.history}), *reliability_curve({"the model": measured})],
        feedback=feedback_counts(intake),
        tables=held_out_tables(measured),
        notes=[*intake.notes, *trained.notes, *held_out_notes(measured)],
        results=measured.metrics(),
    )
    run.log(f"reward model: {run.folder / 'reward_model'}")
    return measured.objective


def prepare_backbone(run: Run, feedback: Sequence[Feedback]) -> str:
    """The backbone's path; a backbone without one is made and saved in the run's folder."""
    node = run.config.backbone
    if "path" in node:
        return str(node.path)
    folder = run.folder / "backbone"
    sample = feedback[:MAX_CORPUS]
    language_model = run.language_model(corpus=[record.prompt_text + text for record in sample for text in record.responses])
    if run.is_rank_zero:
        language_model.save(folder)
    return str(folder)


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan. Raises ConfigError for reward_head=features."""
    from rlhf_lightning.reward.module import feedback_loader

    if "texts" in run.component_of("reward_head").needs:
        raise ConfigError("reward_head=features has no trunk: it is a regression on the features of the texts, and no plan is needed")
    settings, trunk = run.settings("reward"), run.reward_trunk()
    run.build("reward_tuning")(trunk)
    if run.has_feedback:
        training, reader = train_val_split(run.inputs.judgements, settings.validation_fraction).training, run.reward_model(trunk)
        batches = run.texts(feedback_loader(training, reader, settings.batch_size, run.seed, 0, run.setup.world_size))
    else:
        batches = run.collected_texts(run.language_model(corpus=run.inputs.corpus), "reward", settings.batch_size)
    job = run.reward_job(trunk)
    return run.plan(job, job.supervised_phases(batches))
