"""stage=rounds: collect feedback, train a reward model, tune the policy, measure; again until the target is met."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import make, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import ingest
from rlhf_lightning.stage._fitting_task import fitting_task
from rlhf_lightning.stage._ppo_checks import check_policy_training
from rlhf_lightning.stage._reference import prepare_policy_and_reference
from rlhf_lightning.stage.evaluate import evaluate_policy
from rlhf_lightning.stage.ppo import held_out_scorers, rehearse_with_scorer, train_ppo
from rlhf_lightning.stage.reward import rehearse as rehearse_reward
from rlhf_lightning.stage.sft import rehearse as rehearse_sft
from rlhf_lightning.stage.sft import train_sft

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured
    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.flow import Prompt
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.stage._planned_run import PlannedRun
    from rlhf_lightning.stage._reward_training import TrainedReward


@dataclass
class Round:
    """What one round left behind."""

    number: int
    intake: Intake
    reward: TrainedReward
    ceiling: float
    history: list[dict[str, float]]
    measured: Measured


@dataclass
class Story:
    """The whole run so far."""

    start: Measured
    rounds: list[Round] = field(default_factory=list)

    def improvement(self) -> float:
        """By how many standard deviations of the start's utility the mean utility has risen."""
        before = self.start.values["utility"]
        mean = sum(before) / len(before)
        deviation = (sum((u - mean) ** 2 for u in before) / (len(before) - 1)) ** 0.5
        return (self.rounds[-1].measured.mean("utility") - mean) / max(float(deviation), 1e-9)


def check_combination(choices: ComposedConfig) -> None:
    """Refuse settings that don't go together, before any model loads. Raises ConfigError."""
    choices.require("feedback_annotator", "feedback_comment", "reward_pooling", "reward_head", "reward_tuning")
    choices.run_checks("feedback_filter", "reward_loss", "evaluation_metric")
    check_policy_training(choices)
    if "utility" not in (choices.config.get("evaluation_metric") or {}):
        raise ConfigError("stage=rounds holds the utility to its target: keep it among the metrics, evaluation_metric=[utility,...]")


@register("stage", "rounds", check=check_combination)
def rounds(
    run: Run, *, max_rounds: PositiveInt = 2, target: PositiveFloat = 1.5, prompts: PositiveInt = 560, responses: PositiveInt = 4
) -> float:
    """The whole loop with the chosen annotators. Returns the improvement in standard deviations of the start's utility.

    Args:
        max_rounds: the most rounds to run.
        target: stop once the mean utility has risen by so many standard deviations of the start's.
        prompts, responses: in each round so many times a training prompt is drawn, answered so often, and the answers judged together.
    """
    from rlhf_lightning.stage._reward_training import train_reward

    task: Task = run.build("task")
    if not task.has_utility:
        raise ConfigError("stage=rounds needs a task with a known utility for its annotators and its target; task=reviews has one")
    annotators = run.build("feedback_annotator", task)
    held_out = held_out_scorers(run, task)
    notes: list[str] = []
    policy = run.language_model(corpus=run.corpus(task))
    task = fitting_task(run, task, policy, notes=notes)
    train_sft(run, task, policy, run.folder / "sft")
    start = prepare_policy_and_reference(run, policy, lambda: run.language_model(run.folder / "sft"))
    story = Story(look(run, task, start, start))
    for number in range(1, max_rounds + 1):
        folder = run.folder / f"round_{number}"
        collect(run, task, policy, annotators, number, prompts, responses, folder / "feedback.jsonl")
        intake = load_feedback_so_far(run, number)
        reward = train_reward(run, intake.feedback, str(run.folder / "sft"), folder / "reward_model", f"reward {number}", utility_of(task))
        scorer = make("rollout_scorer", "reward_model", {"path": str(folder / "reward_model")})
        module = train_ppo(run, policy, start, scorer, task, folder / "policy", held_out, f"ppo {number}", starts_at_reference=number == 1)
        after = look(run, task, policy, start, scorer)
        story.rounds.append(Round(number, intake, reward, ceiling_of(task, reward), module.history, after))
        run.log(f"round {number}: utility {story.start.mean('utility'):.3f} -> {after.mean('utility'):.3f}, KL {after.kl:.2f}")
        if story.improvement() >= target:
            break
    tell(run, story, target, notes)
    run.log(f"policy: {run.folder / f'round_{len(story.rounds)}' / 'policy'}")
    return story.improvement()


def look(run: Run, task: Task, policy: LanguageModel, start: LanguageModel, scorer: Any = None) -> Measured:
    with run.time_stage("evaluate"):
        return evaluate_policy(run, task, policy, scorer, start)


def collect(run: Run, task: Task, policy: LanguageModel, annotators: Any, number: int, prompts: int, responses: int, file: Path) -> None:
    """Let the annotators judge the policy's own samples in all kinds, and write what they say as JSON Lines.

    A sample that is empty or holds a NUL, as files of feedback can't, is shown to nobody. Every process draws the same samples, so that
    all have the same feedback; the first writes it.
    """
    import torch

    from rlhf_lightning.training.distributed import barrier

    with run.time_stage("collect"), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(run.seed * 1000 + number)
        known = task.train_prompts()
        random.Random(run.seed * 1000 + number).shuffle(known)
        asked = list(itertools.islice(itertools.cycle(known), prompts))
        policy.model.eval()
        policy.model.to("cpu")
        batch = policy.encode_prompts(asked, run.max_response_tokens).repeat(responses)
        texts = run.build("rollout_sampler")(policy, batch).responses
        groups = [(prompt, list(filter(_can_be_shown, texts[i * responses : (i + 1) * responses]))) for i, prompt in enumerate(asked)]
        feedback = annotators.judge([(prompt, answers) for prompt, answers in groups if answers])
        if not feedback:
            raise ConfigError(
                f"round {number}: no feedback, for the annotators judge nothing (feedback_annotator) or all samples are empty"
            )
        if run.is_rank_zero:
            write_atomic(file, "".join(record.model_dump_json() + "\n" for record in feedback), private=True)
        barrier()  # the others read it next


def _can_be_shown(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text


def load_feedback_so_far(run: Run, rounds: int) -> Intake:
    """The feedback of every round so far, through the same door as a user's own files."""
    files = tuple(str(run.folder / f"round_{number}" / "feedback.jsonl") for number in range(1, rounds + 1))
    return ingest(run, make("feedback_source", "jsonl", {"path": files})(), [make("feedback_format", "record", {})])


def ceiling_of(task: Task, reward: TrainedReward) -> float:
    """How often the hidden utility itself agrees with the held-out feedback: annotators err, so that no reward model reaches 1."""
    from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons

    orders, utility = judged_comparisons(reward.division.held_out), utility_of(task)
    return sum(utility(one.prompt, one.better) > utility(one.prompt, one.worse) for one in orders) / max(1, len(orders))


def utility_of(task: Task) -> Callable[[Prompt, str], float]:
    """What the task finds a response worth, for any prompt that feedback has."""
    from rlhf_lightning.flow import prompt_text

    return lambda prompt, response: task.utility(prompt_text(prompt), response)


def tell(run: Run, story: Story, target: float, notes: list[str]) -> None:
    """The report of all rounds."""
    from rlhf_lightning.policy.alarms import alarm_notes
    from rlhf_lightning.report.policy import policy_metrics, ppo_curves, result_metrics, side_by_side
    from rlhf_lightning.report.report import FeedbackCount, Target
    from rlhf_lightning.report.reward import held_out_notes, reliability_curve, reward_metrics
    from rlhf_lightning.stage._report import write_report

    last = story.rounds[-1]
    story.start.values["score"] = last.reward.model.score_texts(story.start.prompts, story.start.responses).tolist()
    # none where nothing held out states an order
    improvement, accuracy = story.improvement(), last.reward.measured.accuracy.get("all")
    counted = Counter(last.intake.collected)
    histories = {f"round {r.number}": r.history for r in story.rounds}
    write_report(
        run,
        "From feedback to a better policy",
        metrics=[
            *policy_metrics(story.start, last.measured),
            *reward_metrics(last.reward.measured, last.ceiling),
        ],
        rounds=round_results(story),
        curves=[
            *ppo_curves(histories),
            *reliability_curve({f"round {r.number}": r.reward.measured for r in story.rounds}),
        ],
        samples=side_by_side(story.start, last.measured, run.settings("evaluation").samples),
        feedback=[FeedbackCount(kind, count, last.intake.remaining[kind]) for kind, count in sorted(counted.items())],
        target=Target(f"utility up by {target:g} standard deviations of the start", improvement >= target),
        notes=[*notes, *alarm_notes(histories), *last.intake.notes, *last.reward.notes, *held_out_notes(last.reward.measured)],
        results=result_metrics(story.start, last.measured)
        | {"improvement": improvement, "rounds": float(last.number)}
        | ({} if accuracy is None else {"accuracy": accuracy.mean, "accuracy/ceiling": last.ceiling}),
    )


def round_results(story: Story) -> list[Any]:
    """A row for the start and for each round. The intake of a round holds all feedback so far; the row counts its own."""
    from rlhf_lightning.report.policy import prompt_means
    from rlhf_lightning.report.report import RoundResult
    from rlhf_lightning.statistics.intervals import mean_interval

    rows = [RoundResult(number=0, utility=mean_interval(list(prompt_means(story.start, "utility").values())), kl=0.0)]
    collected = remaining = 0
    for done in story.rounds:
        rows.append(
            RoundResult(
                number=done.number,
                collected=done.intake.collected.total() - collected,
                remaining=done.intake.remaining.total() - remaining,
                accuracy=done.reward.measured.accuracy.get("all"),
                ceiling=done.ceiling if "all" in done.reward.measured.accuracy else None,
                score=done.measured.mean("score"),
                utility=mean_interval(list(prompt_means(done.measured, "utility").values())),
                kl=done.measured.kl,
            )
        )
        collected, remaining = done.intake.collected.total(), done.intake.remaining.total()
    return rows


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan: warm-up, samples for annotators, reward model, PPO."""
    import dataclasses

    settings = run.config.stage
    policy_plan = rehearse_with_scorer(run, run.reward_trunk())
    # The policy and its reference exist from the samples on.
    resident = sum(part.weights for part in policy_plan.parts if part.role in ("policy", "reference"))
    policy = run.language_model(corpus=run.inputs.corpus)
    samples = run.policy_job(policy).collect(run.generation(policy).rows(settings.prompts * settings.responses), resident)
    phases = [dataclasses.replace(phase, name=f"sft: {phase.name}", seconds=0.0) for phase in rehearse_sft(run).phases]
    phases.append(samples)
    for phase in rehearse_reward(run).phases:
        phases.append(dataclasses.replace(phase, name=f"reward: {phase.name}", resident=phase.resident + resident, seconds=0.0))
    return dataclasses.replace(policy_plan, phases=[*phases, *policy_plan.phases])
