"""stage=preference: tune the policy on preferences, without a reward model and without rollouts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.registry import register
from rlhf_lightning.rounds.artefacts import FEEDBACK, write_feedback
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._annotators import build_annotators, check_annotators
from rlhf_lightning.stage._evaluation import PREFERENCE, check_monitor
from rlhf_lightning.stage._feedback import backbone_tokenizer, load_feedback, log_counts, train_val_split
from rlhf_lightning.stage._round_feedback import load_feedback_so_far
from rlhf_lightning.stage._sampling import sample_groups
from rlhf_lightning.stage._task import build_task, fitting_task
from rlhf_lightning.stage._training import prepare_policy_and_reference
from rlhf_lightning.stage.evaluate import build_scorer, evaluate_policy
from rlhf_lightning.stage.sft import train_sft

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured
    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.interfaces import Annotator, Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.stage._planned_run import PlannedRun
    from rlhf_lightning.stage._preference_training import TrainedPreference

MAX_RECORDS_CHECKED = 1_000
"""Records whose prompts are compared with the task's."""
OFF_TASK = "no prompt of the feedback is one of the task's: no responses were drawn before and after; task=files gives your own"
CURVES = (
    ("Loss", "", "loss", "loss"),
    ("Margin of implicit rewards", "", "margin", "rewards/margins"),
    ("Log-probability of the better response", "nats per response", "chosen", "logps/chosen"),
    ("Log-probability of the worse response", "nats per response", "rejected", "logps/rejected"),
)
"""Title, unit, label and metric of the report's curves."""


@dataclasses.dataclass
class PreferenceInputs:
    """The policy to train, the reference, the task whose prompts they answer, and the feedback."""

    policy: LanguageModel
    reference: LanguageModel
    task: Task
    intake: Intake
    on_task: bool


def check_combination(choices: ComposedConfig) -> None:
    """Check the components before any data is read. Raises ConfigError."""
    choices.require("task", "backbone", "preference_loss", "policy_tuning", "feedback_comment", "rollout_sampler", "optimizer", "schedule")
    choices.run_checks("callback")
    check_monitor(choices, PREFERENCE)
    if not choices.config.get("feedback_source"):
        check_annotators(choices)
    loss = choices.component_of("preference_loss")
    unknown = loss.needs - {"reference", "thumbs"}
    if unknown:
        raise ConfigError(f"preference_loss={loss.name} needs {', '.join(sorted(unknown))}; a preference loss may need reference or thumbs")
    choices.build("preference_loss")


@register("stage", "preference", check=check_combination)
def preference(run: Run, *, prompts: PositiveInt = 560, responses: PositiveInt = 4) -> float:
    """Tune the backbone on preferences directly (DPO and its like); leaves the folder policy/.

    Without a feedback_source the backbone is first warmed up on the task's demonstrations, and feedback_annotator judges its samples, as in
    stage=rounds. If the feedback is on the task's prompts, held-out prompts are answered before and after.

    Returns:
        the mean score or utility after, if there is one; else the accuracy of the implicit rewards on held-out feedback.

    Args:
        prompts: number of prompts sampled for the annotators.
        responses: sampled to each prompt and judged together.
    """
    from rlhf_lightning.stage._preference_training import train_preference

    task = build_task(run)
    if not run.config.get("feedback_source") and not task.has_utility:
        names = "feedback_source=... feedback_source.NAME.path=..."
        raise ConfigError(f"stage=preference learns from feedback: add `{names}`, or choose task=reviews, whose annotators are simulated")
    scorer = build_scorer(run, task) if run.config.get("rollout_scorer") else None
    inputs = read_inputs(run, task) if run.config.get("feedback_source") else collect_inputs(run, task, prompts, responses)
    log_counts(run, inputs.intake)
    before = evaluate_policy(run, inputs.task, inputs.policy, scorer) if inputs.on_task else None
    prompts_of = inputs.task if inputs.on_task else None
    trained = train_preference(run, inputs.intake, inputs.policy, run.folder / "policy", prompts_of, "preference")
    after = evaluate_policy(run, inputs.task, inputs.policy, scorer, inputs.reference) if inputs.on_task else None
    write_preference_report(run, inputs, trained, before, after)
    run.log(f"policy: {run.folder / 'policy'}")
    means = {} if after is None else {name: after.mean(name) for name in ("score", "utility") if name in after.values}
    return next(iter(means.values()), trained.held_out.objective)


def read_inputs(run: Run, task: Task) -> PreferenceInputs:
    """Read the feedback of the command's sources, and load the policy and the reference."""
    with run.time_stage("read"):
        intake = load_feedback(run, backbone_tokenizer(run))
    check_feedback(run, intake)
    on_task, corpus = is_on_task(intake, task), run.corpus(task)
    policy = run.language_model(corpus=corpus)
    if on_task:
        task = fitting_task(run, task, policy, notes=intake.notes)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    return PreferenceInputs(policy, reference, task, intake, on_task)


def collect_inputs(run: Run, task: Task, prompts: int, responses: int) -> PreferenceInputs:
    """Warm the policy up on demonstrations, and let the annotators judge its samples."""
    annotators = build_annotators(run, task)
    notes: list[str] = []
    policy = run.language_model(corpus=run.corpus(task))
    task = fitting_task(run, task, policy, notes=notes)
    train_sft(run, task, policy, run.folder / "sft")
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(run.folder / "sft"))
    collect(run, task, policy, annotators, prompts, responses, run.folder / "round_1" / FEEDBACK)
    intake = load_feedback_so_far(run, [1])
    intake.notes += notes
    check_feedback(run, intake)
    return PreferenceInputs(policy, reference, task, intake, is_on_task(intake, task))


def collect(run: Run, task: Task, policy: LanguageModel, annotators: Annotator, prompts: int, responses: int, file: Path) -> None:
    """Let the annotators judge the policy's samples, and write their feedback.

    Raises:
        ConfigError: there is none.
    """
    from rlhf_lightning.training.distributed import raise_on_all_ranks

    with run.time_stage("collect"):
        groups = sample_groups(run, task, policy, prompts, responses, 1)
        raise_on_all_ranks(lambda: judge_groups(groups, annotators, file) if run.is_rank_zero else None)


def judge_groups(groups: Sequence[Any], annotators: Annotator, file: Path) -> None:
    """Write the feedback on the groups. Raises ConfigError if there is none."""
    feedback = annotators.judge([(group.prompt, list(group.responses)) for group in groups], number=1)
    if not feedback:
        raise ConfigError("no feedback: the annotators judge nothing (feedback_annotator), or all samples are empty")
    write_feedback(file, feedback)


def check_feedback(run: Run, intake: Intake) -> None:
    """Require a judgement that the loss learns from, before any model loads.

    Raises:
        ConfigError: naming the kinds of the feedback and those that the loss learns from.
    """
    from rlhf_lightning.flow import Ranking
    from rlhf_lightning.preference.examples import COMPARING

    name, thumbs = run.component_of("preference_loss").name, "thumbs" in run.component_of("preference_loss").needs
    pairs = not thumbs or bool(getattr(run.build("preference_loss"), "from_pairs", False))
    kinds = {*intake.remaining, *(("rating",) if intake.remaining.get("comment") and run.settings("feedback").comment_weight else ())}
    if pairs and kinds & set(COMPARING):
        return
    if thumbs and ("thumbs" in kinds or any(isinstance(r.judgement, Ranking) and r.judgement.all_bad for r in intake.feedback)):
        return
    wanted = "thumbs" if thumbs else "comparisons (pairs, rankings, edits, or several ratings by one annotator)"
    if thumbs and not pairs and kinds & set(COMPARING):
        remedy = "take comparisons as thumbs with preference_loss.from_pairs=true, or choose preference_loss=dpo"
    elif not thumbs and "thumbs" in kinds:
        remedy = "choose preference_loss=kto, which learns from thumbs"
    else:
        remedy = "give such feedback"
    raise ConfigError(f"preference_loss={name} learns from {wanted}, and the feedback holds only {', '.join(sorted(kinds))}: {remedy}")


def is_on_task(intake: Intake, task: Task) -> bool:
    """Compare the feedback's prompts with the task's; a task without a utility is the user's own."""
    if not task.has_utility:
        return True
    prompts = {prompt_text(row.prompt) for row in (*task.train_prompts(), *task.test_prompts())}
    return any(record.prompt_text in prompts for record in itertools.islice(intake.feedback, MAX_RECORDS_CHECKED))


def write_preference_report(
    run: Run, inputs: PreferenceInputs, trained: TrainedPreference, before: Measured | None, after: Measured | None
) -> None:
    """Write the report of the policy, its implicit rewards and the training."""
    from rlhf_lightning.report.policy import curve, evaluation_curves, feedback_counts, policy_metrics, result_metrics, side_by_side
    from rlhf_lightning.report.reward import held_out_notes, held_out_tables, reliability_curve
    from rlhf_lightning.stage._report import write_report

    curves = [curve(title, "step", unit, {label: trained.history}, metric) for title, unit, label, metric in CURVES]
    ratios = {} if trained.ratios is None else {f"held_out/{name}": ratio.mean for name, ratio in vars(trained.ratios).items()}
    write_report(
        run,
        "Preference optimisation",
        metrics=[*([] if after is None else policy_metrics(before, after)), *preference_metrics(trained)],
        curves=[*curves, *evaluation_curves({"": trained.history}), *reliability_curve({"implicit rewards": trained.held_out})],
        samples=[] if before is None or after is None else side_by_side(before, after, run.settings("evaluation").samples),
        feedback=feedback_counts(inputs.intake),
        tables=held_out_tables(trained.held_out),
        notes=[*inputs.intake.notes, *trained.notes, *([] if inputs.on_task else [OFF_TASK]), *held_out_notes(trained.held_out)],
        results=({} if after is None else result_metrics(before, after)) | trained.held_out.metrics() | ratios,
    )


def preference_metrics(trained: TrainedPreference) -> Sequence[Any]:
    """Accuracy and margin of the implicit rewards, and the policy's log-ratios to the reference."""
    from rlhf_lightning.report.report import Metric
    from rlhf_lightning.report.reward import reward_metrics

    metrics = [
        dataclasses.replace(metric, label=metric.label.replace("Reward-model", "Implicit-reward"))
        for metric in reward_metrics(trained.held_out)
    ]
    ratios = trained.ratios
    if ratios is None:
        return metrics
    return [
        *metrics,
        Metric(label="Margin of implicit rewards", after=ratios.margin, headline=False),
        Metric(label="Better responses, log-ratio to the start", after=ratios.better, unit="nats", better=None, headline=False),
        Metric(label="Worse responses, log-ratio to the start", after=ratios.worse, unit="nats", better=None, headline=False),
    ]


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan."""
    from rlhf_lightning.plan.fake_run import Texts
    from rlhf_lightning.plan.jobs import SCORING_BATCH
    from rlhf_lightning.preference.examples import TextTable, preference_loader
    from rlhf_lightning.stage._preference_training import build_examples
    from rlhf_lightning.tokenization.encoding import length_limit

    settings, corpus = run.settings("preference"), run.inputs.corpus
    policy = run.language_model(corpus=corpus)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    job = run.policy_job(policy, reference)
    if run.has_feedback:
        training = train_val_split(run.inputs.judgements, settings.validation_fraction, "preference").training
        limit = length_limit(settings.max_length, policy.max_length, "preference.max_length")
        table = TextTable(policy.tokenizer, limit.tokens, policy.eos_ids)
        examples = build_examples(run, training, table, limit)
        batches = run.texts(preference_loader(examples, table, settings.batch_size, run.seed, 0, run.setup.world_size))
    else:
        batches = run.collected_texts(policy, "preference", 2 * settings.batch_size)
    has_reference = "reference" in run.component_of("preference_loss").needs
    return run.plan(job, job.supervised_phases(batches, Texts.concatenate(batches).longest(SCORING_BATCH) if has_reference else None))
