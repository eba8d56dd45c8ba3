"""stage=rounds: collect feedback, learn reward and policy, compare; repeat until the target."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.rounds.ledger import Ledger
from rlhf_lightning.rounds.settings import RoundsSettings, Training
from rlhf_lightning.rounds.target import UTILITY, WIN_RATE, check_name, parse_target
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._annotators import build_annotators, check_annotators
from rlhf_lightning.stage._evaluation import LOSS, check_monitor, policy_names
from rlhf_lightning.stage._ppo_checks import check_policy_training
from rlhf_lightning.stage._round_comparison import RoundOutcome, ceiling, compare, summary_line, target_metrics, target_names
from rlhf_lightning.stage._round_selection import select
from rlhf_lightning.stage._round_steps import Loop, judge, learn_policy, learn_reward, measure_start, sample, warm_up
from rlhf_lightning.stage._rounds_report import report_rounds
from rlhf_lightning.stage._task import build_task, fitting_task
from rlhf_lightning.stage._training import prepare_policy_and_reference
from rlhf_lightning.stage.ppo import held_out_scorers, rehearse_with_scorer
from rlhf_lightning.stage.reward import rehearse as rehearse_reward
from rlhf_lightning.stage.sft import rehearse as rehearse_sft

if TYPE_CHECKING:
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.stage._planned_run import PlannedRun

Fraction = Annotated[float, Field(ge=0, lt=1)]


def check_combination(choices: ComposedConfig) -> None:
    """Check the combination of settings before any model loads. Raises ConfigError."""
    choices.require("feedback_selection", "feedback_comment", "reward_pooling", "reward_head", "reward_tuning")
    check_annotators(choices)
    choices.run_checks("feedback_filter", "reward_loss", "evaluation_metric", "rollout_scorer")
    check_policy_training(choices)
    check_monitor(choices, [*LOSS, *policy_names(choices)])
    if choices.component_of("stage").name == "rounds":  # stage=plan has no such settings
        check_settings(choices)


def check_settings(choices: ComposedConfig) -> None:
    """Check the settings of the stage against one another. Raises ConfigError."""
    settings = choices.config.stage
    target = parse_target(str(settings.target))
    check_name(target, *target_names(choices))
    if target.name == WIN_RATE:
        check_annotators(choices, ("ranking",), f"stage.target={target.text}")
    if settings.train == "preference":
        choices.require("preference_loss")
    if settings.learn_edits and settings.train == "ppo" and not choices.settings("ppo").ptx_coef:
        raise ConfigError("stage.learn_edits gives demonstrations, and PPO reads none: add ppo.ptx_coef=0.1, or stage.train=sft_best")
    if settings.learn_edits and settings.train == "preference":
        raise ConfigError("stage.learn_edits: stage.train=preference learns from edits as comparisons already: leave it out")
    if settings.watched_feedback and choices.settings("ppo").held_out_scorer:
        raise ConfigError("stage.watched_feedback and ppo.held_out_scorer both watch over-optimisation: leave one of them out")


@register("stage", "rounds", check=check_combination)
def rounds(
    run: Run,
    *,
    max_rounds: PositiveInt = 2,
    target: str = "utility>=1.5",
    prompts: PositiveInt = 560,
    responses: PositiveInt = 4,
    questions: PositiveInt | None = None,
    comparisons: PositiveInt = 100,
    train: Training = "ppo",
    warm_reward: bool = False,
    age_decay: Annotated[float, Field(gt=0, le=1)] = 1.0,
    learn_edits: bool = False,
    watched_feedback: Fraction = 0.0,
    stop_at_peak: bool = True,
) -> float:
    """Run the complete loop; returns the value of the target after the last round.

    Args:
        max_rounds: the maximal number of rounds.
        target: NAME>=NUMBER that ends the run. win_rate: share of blind comparisons with the initial policy that the annotators give to
            the new one. utility: rise of the mean utility, in standard deviations of the start's. score: mean of ppo.held_out_scorer. Or
            the mean of an evaluation_metric or rollout_scorer, which the policy doesn't learn from here. Met once the bound of the interval
            has reached it (of the utility: the estimate).
        prompts: sampled in each round.
        responses: sampled to each prompt and judged together.
        questions: that the annotators are asked in each round, chosen by feedback_selection; null: all samples.
        comparisons: held-out prompts at most that are compared for a win rate.
        train: how the policy learns: ppo (with any advantage and policy loss), preference (preference_loss on the feedback), or sft_best
            (fine-tuning on the best of each prompt's samples by the reward model).
        warm_reward: train each round's reward model further, instead of anew from the base model.
        age_decay: factor of a judgement's weight for each round since it was given.
        learn_edits: take the annotators' edits as demonstrations too, in sft_best and in ppo.ptx_coef.
        watched_feedback: fraction of the prompts whose judgements train a second reward model, which only watches over-optimisation.
        stop_at_peak: end a round's PPO once a held-out score is past its peak (docs/overoptimisation.md).
    """
    settings = RoundsSettings(
        parse_target(target), max_rounds, prompts, responses, questions, comparisons, train, warm_reward, age_decay, learn_edits,
        watched_feedback, stop_at_peak,
    )  # fmt: skip
    loop = begin(run, settings)
    return repeat_rounds(loop)


def repeat_rounds(loop: Loop) -> float:
    """Repeat the rounds until the target is met; returns its last value."""
    run, target, max_rounds = loop.run, loop.settings.target, loop.settings.max_rounds
    start = measure_start(loop)
    outcomes: list[RoundOutcome] = []
    for number in loop.ledger.numbers(max_rounds):
        loop.begin(number)
        samples = sample(loop)
        judge(loop, select(loop, samples))
        reward = learn_reward(loop)
        history = learn_policy(loop, samples, reward)
        after, value = compare(loop, start, reward)
        outcomes.append(RoundOutcome(number, reward, history, after, value, ceiling(loop.task, reward)))
        run.log(summary_line(number, start, after, value, target))
        if target.is_met(value):
            run.stop_reason = "target" if len(outcomes) < max_rounds else ""
            break
    if run.stop_reason:
        loop.notes.append(f"the run ended early, by its target, after {len(outcomes)} of {max_rounds} rounds")
        run.log(loop.notes[-1])
    report_rounds(loop, start, outcomes)
    run.log(f"policy: {loop.folder / 'policy'}")
    return outcomes[-1].value.mean


def begin(run: Run, settings: RoundsSettings) -> Loop:
    """Build the task, the annotators, the initial policy and its reference.

    Raises:
        ConfigError: a target or annotators that need a utility, and the task has none.
    """
    task = build_task(run)
    if settings.target.name == UTILITY and not task.has_utility:
        raise ConfigError(
            f"stage.target={settings.target.text} needs a task with a known utility, as task=reviews has one; for other tasks choose "
            "stage.target='win_rate>=0.65', or another measured value"
        )
    if settings.target.name == WIN_RATE and not task.test_prompts():
        raise ConfigError(
            f"stage.target={settings.target.text} compares on prompts that are not in training, and the task holds none out: give "
            "task.test_prompts, or task.test_fraction=0.1"
        )
    annotators = build_annotators(run, task)
    watched = held_out_scorers(run, task)
    extra = target_metrics(run, task)
    if run.config.get("rollout_scorer"):
        from rlhf_lightning.policy.metrics import HELD_OUT_SCORES
        from rlhf_lightning.stage.evaluate import build_scorer

        watched.setdefault(HELD_OUT_SCORES, build_scorer(run, task))
    notes: list[str] = []
    ledger = Ledger(run.folder)
    policy = run.language_model(corpus=run.corpus(task))
    task = fitting_task(run, task, policy, notes=notes)
    trunk = warm_up(run, ledger, task, policy)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(trunk if trunk == str(run.folder / "sft") else None))
    return Loop(run, settings, ledger, task, annotators, policy, reference, trunk, watched, extra, notes)


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan: warm-up, samples for annotators, reward model, PPO."""
    settings = run.config.stage
    policy_plan = rehearse_with_scorer(run, run.reward_trunk())
    # The policy and its reference exist from the samples on.
    resident = sum(part.weights for part in policy_plan.parts if part.role in ("policy", "reference"))
    policy = run.language_model(corpus=run.inputs.corpus)
    samples = run.policy_job(policy).collect(run.generation(policy).rows(settings.prompts * settings.responses), resident)
    warm_ups = rehearse_sft(run).phases if run.inputs.task.demonstrations() else []
    phases = [dataclasses.replace(phase, name=f"sft: {phase.name}", seconds=0.0) for phase in warm_ups]
    phases.append(samples)
    for phase in rehearse_reward(run).phases:
        phases.append(dataclasses.replace(phase, name=f"reward: {phase.name}", resident=phase.resident + resident, seconds=0.0))
    return dataclasses.replace(policy_plan, phases=[*phases, *policy_plan.phases])
