"""stage=preference: tune the policy on what people prefer, without a reward model and without rollouts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer, read, with_weights
from rlhf_lightning.stage._fitting_task import fitting_task
from rlhf_lightning.stage._reference import prepare_policy_and_reference
from rlhf_lightning.stage.evaluate import build_scorer, evaluate_policy
from rlhf_lightning.stage.reward import divided
from rlhf_lightning.stage.rounds import collect, load_feedback_so_far, utility_of
from rlhf_lightning.stage.sft import train_sft

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured
    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.feedback.judgements import Judgements
    from rlhf_lightning.feedback.split import Split
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.preference.examples import Examples
    from rlhf_lightning.preference.implicit_reward import HeldOutRatios
    from rlhf_lightning.preference.texts import TextTable
    from rlhf_lightning.reward.evaluation.held_out import HeldOut
    from rlhf_lightning.stage._planned_run import PlannedRun
    from rlhf_lightning.tokenization.length_limit import LengthLimit

LOOKED_AT = 1_000
"""Records by whose prompts the stage sees whether the feedback is on the task."""


@dataclass
class TrainedPreference:
    """What the training left: its history, its metrics on held-out feedback, and what the user should know."""

    history: list[dict[str, float]]
    held_out: HeldOut
    ratios: HeldOutRatios | None
    notes: list[str]


def check_combination(choices: ComposedConfig) -> None:
    """Refuse settings that don't go together, before anything is read. Raises ConfigError."""
    choices.require("task", "backbone", "preference_loss", "policy_tuning", "feedback_comment", "rollout_sampler")
    loss = choices.component_of("preference_loss")
    unknown = loss.needs - {"reference", "thumbs"}
    if unknown:
        raise ConfigError(f"preference_loss={loss.name} needs {', '.join(sorted(unknown))}; a preference loss may need reference or thumbs")
    choices.build("preference_loss")


@register("stage", "preference", check=check_combination)
def preference(run: Run, *, prompts: PositiveInt = 560, responses: PositiveInt = 4) -> float:
    """Tune the backbone on preferences directly (DPO and its like), no reward model, no rollouts; leaves the folder policy/.

    Without a feedback_source the backbone is first warmed up on the task's demonstrations, and feedback_annotator judges its samples, as in
    stage=rounds. Held-out prompts are answered before and after where the feedback is on the task's prompts.

    Returns:
        the mean score or utility after, where there is one; else the accuracy of the implicit rewards on held-out feedback.

    Args:
        prompts, responses: where feedback is collected: so often a prompt is drawn, and answered each time, the answers judged together.
    """
    task: Task = run.build("task")
    if not run.config.get("feedback_source") and not task.has_utility:
        names = "feedback_source=... feedback_source.NAME.path=..."
        raise ConfigError(f"stage=preference learns from feedback: add `{names}`, or choose task=reviews, whose annotators are simulated")
    scorer = build_scorer(run) if run.config.get("rollout_scorer") else None
    if run.config.get("feedback_source"):
        with run.time_stage("read"):
            intake = read(run, backbone_tokenizer(run))
        check_feedback(run, intake)
        on_task = is_on_task(intake, task)
        corpus = run.corpus(task)
        policy = run.language_model(corpus=corpus)
        if on_task:
            task = fitting_task(run, task, policy, notes=intake.notes)
        start = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    else:
        policy, start, task, intake = collected(run, task, prompts, responses)
        check_feedback(run, intake)
        on_task = is_on_task(intake, task)
    run.log(f"{sum(intake.remaining.values())} judgements: {', '.join(f'{n} {kind}' for kind, n in sorted(intake.remaining.items()))}")
    before = after = None
    if on_task:
        before = look(run, task, policy, scorer, start)
    trained = train_preference(run, intake, policy, run.folder / "policy", task if on_task else None)
    if on_task:
        after = look(run, task, policy, scorer, start)
    else:
        trained.notes.append(
            "no prompt of the feedback is one of the task's: no responses were drawn before and after; task=files gives your own"
        )
    tell(run, intake, trained, before, after)
    run.log(f"policy: {run.folder / 'policy'}")
    means = {} if after is None else {name: after.mean(name) for name in ("score", "utility") if name in after.values}
    return next(iter(means.values()), trained.held_out.objective)


def look(run: Run, task: Task, policy: LanguageModel, scorer: Any, start: LanguageModel) -> Measured:
    with run.time_stage("evaluate"):
        return evaluate_policy(run, task, policy, scorer, start)


def check_feedback(run: Run, intake: Intake) -> None:
    """Refuse feedback without a judgement that the loss learns from, before any model loads.

    Raises:
        ConfigError: naming the kinds that there are and those that it learns from.
    """
    from rlhf_lightning.flow import Ranking
    from rlhf_lightning.preference.examples import COMPARING

    name, thumbs = run.component_of("preference_loss").name, "thumbs" in run.component_of("preference_loss").needs
    pairs = not thumbs or bool(getattr(run.build("preference_loss"), "from_pairs", False))
    found = {*intake.remaining, *(("rating",) if intake.remaining.get("comment") and run.settings("feedback").comment_weight else ())}
    if pairs and found & set(COMPARING):
        return
    if thumbs and ("thumbs" in found or any(isinstance(one.judgement, Ranking) and one.judgement.all_bad for one in intake.feedback)):
        return
    wanted = "thumbs" if thumbs else "comparisons (pairs, rankings, edits, or several ratings by one annotator)"
    if thumbs and not pairs and found & set(COMPARING):
        remedy = "take comparisons as thumbs with preference_loss.from_pairs=true, or choose preference_loss=dpo"
    elif not thumbs and "thumbs" in found:
        remedy = "choose preference_loss=kto, which learns from thumbs"
    else:
        remedy = "give such feedback"
    raise ConfigError(f"preference_loss={name} learns from {wanted}, and the feedback holds only {', '.join(sorted(found))}: {remedy}")


def collected(run: Run, task: Task, prompts: int, responses: int) -> tuple[LanguageModel, LanguageModel, Task, Intake]:
    """The backbone warmed up, what it is compared with, the task's prompts that fit it, and what the annotators say about its samples."""
    annotators = run.build("feedback_annotator", task)
    notes: list[str] = []
    policy = run.language_model(corpus=run.corpus(task))
    task = fitting_task(run, task, policy, notes=notes)
    train_sft(run, task, policy, run.folder / "sft")
    start = prepare_policy_and_reference(run, policy, lambda: run.language_model(run.folder / "sft"))
    collect(run, task, policy, annotators, 1, prompts, responses, run.folder / "round_1" / "feedback.jsonl")
    intake = load_feedback_so_far(run, 1)
    intake.notes += notes
    return policy, start, task, intake


def is_on_task(intake: Intake, task: Task) -> bool:
    """Whether the feedback answers the task's prompts. A task of the user's own files is always meant."""
    if not task.has_utility:
        return True
    known = {*task.train_prompts(), *task.test_prompts()}
    return any(record.prompt_text in known for record in itertools.islice(intake.feedback, LOOKED_AT))


def train_preference(run: Run, intake: Intake, policy: LanguageModel, folder: Path, task: Task | None) -> TrainedPreference:
    """Train the policy in place on the judgements of most prompts, measure its implicit rewards on those of the others, and save it as a
    plain Hugging Face folder.

    Args:
        task: what the feedback is on, where that is known: the length's share is then told at equal utility.
    """
    import numpy as np

    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.preference.examples import preference_loader
    from rlhf_lightning.preference.implicit_reward import ImplicitReward, in_table
    from rlhf_lightning.preference.module import PreferenceModule
    from rlhf_lightning.preference.texts import TextTable
    from rlhf_lightning.reward.evaluation.measure import measure_held_out
    from rlhf_lightning.stage._training import on_training_device, train
    from rlhf_lightning.tokenization.length_limit import length_limit

    if policy.decoder_prefix is not None:
        raise ConfigError("stage=preference takes decoder-only models yet: choose backbone=causal, or stage=ppo for this backbone")
    settings, loss = run.settings("preference"), run.build("preference_loss")
    division = divided(standardise(with_weights(run, intake.feedback)), settings.validation_fraction, "preference")
    training, aside = division.training, division.held_out
    with run.time_stage("preference"):
        limit = length_limit(settings.max_length, policy.max_length, "preference.max_length")
        table = TextTable(policy.tokenizer, limit.tokens, policy.eos_ids)
        examples = examples_of(run, training, table, limit)
        learned_texts = examples.texts() if "reference" in run.component_of("preference_loss").needs else np.zeros(0, dtype=int)
        held_out, places = in_table(aside, table)
        notes = left_out_notes(run, division, examples, limit, len(aside) - len(held_out), table.rewritten)

        def loader(rank: int, world: int) -> Any:
            return preference_loader(examples, table, settings.batch_size, run.seed, rank, world, settings.micro_batch_size)

        def build(steps: int) -> PreferenceModule:
            return PreferenceModule(policy, loss, settings, steps, table, np.union1d(learned_texts, places))

        metrics = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
        module, trainer = train(run, "preference", settings, loader, build, metrics)
        assert module.reference is not None
        with on_training_device(policy.model, trainer):
            implicit = ImplicitReward(policy, loss, table, module.reference, places)
            truth = utility_of(task) if task is not None and task.has_utility else None
            found = measure_held_out(implicit, held_out, truth=truth)
            ratios = implicit.ratios(held_out)
        run.save(trainer, folder, policy.save)
    return TrainedPreference(module.history, found, ratios, notes)


def examples_of(run: Run, training: Judgements, table: TextTable, limit: LengthLimit) -> Examples:
    """What the loss learns from. Raises ConfigError where nothing is left."""
    from rlhf_lightning.preference.examples import compared_examples, thumbed_examples

    settings, loss = run.settings("preference"), run.build("preference_loss")
    if "thumbs" in run.component_of("preference_loss").needs:
        pairs = bool(getattr(loss, "from_pairs", False))
        examples = thumbed_examples(training, table, pairs, settings.min_rating_gap, run.seed)
    else:
        examples = compared_examples(training, table, settings.min_rating_gap)
    if not len(examples):
        why = f"{examples.left_out} are longer than {limit.tokens} tokens: {limit.remedy}" if examples.left_out else (
            "no ranking or edit prefers a text, and no annotator rated two responses to one prompt differently"
        )  # fmt: skip
        raise ConfigError(f"preference_loss={run.component_of('preference_loss').name} finds nothing to learn from: {why}")
    return examples


def left_out_notes(run: Run, division: Split, examples: Examples, limit: LengthLimit, unmeasured: int, rewritten: int) -> list[str]:
    """What of the feedback the policy doesn't learn from, and why; said on the terminal, too."""
    from rlhf_lightning.preference.examples import not_learned

    name, notes = run.component_of("preference_loss").name, [division.note] if division.note else []
    thumbs = "thumbs" in run.component_of("preference_loss").needs
    pairs = bool(getattr(run.build("preference_loss"), "from_pairs", False))
    unused = not_learned(division.training, thumbs, pairs)
    if unused:
        listed = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(unused.items()))
        notes.append(f"preference_loss={name} doesn't learn from {listed}")
    if examples.left_out:
        notes.append(f"{examples.left_out} judgements have a text of more than {limit.tokens} tokens and are left out: {limit.remedy}")
    if unmeasured:
        notes.append(f"{unmeasured} held-out judgements have a text of more than {limit.tokens} tokens and are not measured")
    if rewritten:
        notes.append(f"the chat template drops a part of {rewritten} responses (such as their thoughts), which is not learned")
    if thumbs and len(set(examples.prompt.tolist())) == 1:
        notes.append("all thumbs are on one prompt, so that the KL of preference_loss=kto is estimated on that prompt's own responses")
    for note in notes:
        run.log(f"preference: {note}")
    return notes


def tell(run: Run, intake: Intake, trained: TrainedPreference, before: Measured | None, after: Measured | None) -> None:
    """The report: what the policy does now, what its implicit rewards are worth on held-out feedback, and how it came there."""
    from rlhf_lightning.report.policy import curve, feedback_counts, policy_metrics, result_metrics, side_by_side
    from rlhf_lightning.report.reward import held_out_notes, held_out_tables, reliability_curve
    from rlhf_lightning.stage._report import end

    measured_metrics = [] if after is None else policy_metrics(before, after)
    curves = [
        curve(title, "step", unit, {name: trained.history}, metric)
        for title, unit, name, metric in (
            ("Loss", "", "loss", "loss"),
            ("Margin of implicit rewards", "", "margin", "rewards/margins"),
            ("Log-probability of the better response", "nats per response", "chosen", "logps/chosen"),
            ("Log-probability of the worse response", "nats per response", "rejected", "logps/rejected"),
        )
    ]
    ratios = {} if trained.ratios is None else {name: value.mean for name, value in vars(trained.ratios).items()}
    end(
        run,
        "Preference optimisation",
        metrics=[*measured_metrics, *preference_metrics(trained)],
        curves=[*curves, *reliability_curve({"implicit rewards": trained.held_out})],
        samples=[] if before is None or after is None else side_by_side(before, after, run.settings("evaluation").samples),
        feedback=feedback_counts(intake),
        tables=held_out_tables(trained.held_out),
        notes=[*intake.notes, *trained.notes, *held_out_notes(trained.held_out)],
        results=({} if after is None else result_metrics(before, after))
        | trained.held_out.metrics()
        | {f"held_out/{name}": value for name, value in ratios.items()},
    )


def preference_metrics(trained: TrainedPreference) -> Sequence[Any]:
    """Accuracy of the implicit rewards on held-out feedback, their margin, and how far the policy has moved on its responses."""
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
    from rlhf_lightning.preference.examples import preference_loader
    from rlhf_lightning.preference.texts import TextTable
    from rlhf_lightning.tokenization.length_limit import length_limit

    settings, corpus = run.settings("preference"), run.inputs.corpus
    policy = run.language_model(corpus=corpus)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    job = run.policy_job(policy, reference)
    if run.has_feedback:
        training = divided(run.inputs.judgements, settings.validation_fraction, "preference").training
        limit = length_limit(settings.max_length, policy.max_length, "preference.max_length")
        table = TextTable(policy.tokenizer, limit.tokens, policy.eos_ids)
        examples = examples_of(run, training, table, limit)
        batches = run.texts(preference_loader(examples, table, settings.batch_size, run.seed, 0, run.setup.world_size))
    else:
        batches = run.collected_texts(policy, "preference", 2 * settings.batch_size)
    has_reference = "reference" in run.component_of("preference_loss").needs
    return run.plan(job, job.supervised_phases(batches, Texts.concatenate(batches).longest(SCORING_BATCH) if has_reference else None))
