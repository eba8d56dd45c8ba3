"""stage=rounds: collect feedback, train reward model and policy, evaluate; repeat until the target."""

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
from rlhf_lightning.stage._annotators import build_annotators, check_annotators
from rlhf_lightning.stage._evaluation import LOSS, check_monitor, evaluate_trained, policy_names
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
    from rlhf_lightning.interfaces import Annotator, Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.stage._planned_run import PlannedRun
    from rlhf_lightning.stage._reward_training import TrainedReward


@dataclass
class RoundOutcome:
    """Results of one round."""

    number: int
    intake: Intake
    reward: TrainedReward
    ceiling: float
    metrics: list[dict[str, float]]
    measured: Measured


@dataclass
class RoundsHistory:
    """The start and the rounds so far."""

    start: Measured
    rounds: list[RoundOutcome] = field(default_factory=list)

    def improvement(self) -> float:
        """Rise of the mean utility, in standard deviations of the start's utility."""
        before = self.start.values["utility"]
        mean = sum(before) / len(before)
        deviation = (sum((u - mean) ** 2 for u in before) / (len(before) - 1)) ** 0.5
        return (self.rounds[-1].measured.mean("utility") - mean) / max(float(deviation), 1e-9)


def check_combination(choices: ComposedConfig) -> None:
    """Check the combination of settings before any model loads. Raises ConfigError."""
    check_annotators(choices)
    choices.require("feedback_comment", "reward_pooling", "reward_head", "reward_tuning")
    choices.run_checks("feedback_filter", "reward_loss", "evaluation_metric")
    check_policy_training(choices)
    check_monitor(choices, [*LOSS, *policy_names(choices)])
    if "utility" not in (choices.config.get("evaluation_metric") or {}):
        raise ConfigError("stage=rounds compares the utility with its target: keep it among the metrics, evaluation_metric=[utility,...]")


@register("stage", "rounds", check=check_combination)
def rounds(
    run: Run, *, max_rounds: PositiveInt = 2, target: PositiveFloat = 1.5, prompts: PositiveInt = 560, responses: PositiveInt = 4
) -> float:
    """Run the complete loop; returns the improvement in standard deviations of the start's utility.

    Args:
        max_rounds: the maximal number of rounds.
        target: rise of the mean utility that ends the run, in standard deviations of the start's.
        prompts: sampled in each round.
        responses: sampled to each prompt and judged together.
    """
    from rlhf_lightning.stage._reward_training import train_reward

    task: Task = run.build("task")
    if not task.has_utility:
        raise ConfigError("stage=rounds needs a task with a known utility for its annotators and its target; task=reviews has one")
    annotators = build_annotators(run, task)
    held_out = held_out_scorers(run, task)
    notes: list[str] = []
    policy = run.language_model(corpus=run.corpus(task))
    task = fitting_task(run, task, policy, notes=notes)
    train_sft(run, task, policy, run.folder / "sft")
    start = prepare_policy_and_reference(run, policy, lambda: run.language_model(run.folder / "sft"))
    history = RoundsHistory(evaluate_policy(run, task, start, None))
    for number in range(1, max_rounds + 1):
        folder = run.folder / f"round_{number}"
        collect(run, task, policy, annotators, number, prompts, responses, folder / "feedback.jsonl")
        intake = load_feedback_so_far(run, number)
        reward = train_reward(run, intake.feedback, str(run.folder / "sft"), folder / "reward_model", f"reward {number}", utility_of(task))
        scorer = make("rollout_scorer", "reward_model", {"path": str(folder / "reward_model")})
        module = train_ppo(run, policy, start, scorer, task, folder / "policy", held_out, f"ppo {number}", starts_at_reference=number == 1)
        after = evaluate_trained(run, f"ppo {number}", history.start, task, policy, scorer, start)
        history.rounds.append(RoundOutcome(number, intake, reward, max_accuracy(task, reward), module.history, after))
        run.log(f"round {number}: utility {history.start.mean('utility'):.3f} -> {after.mean('utility'):.3f}, KL {after.kl:.2f}")
        if history.improvement() >= target:
            run.stop_reason = "target" if number < max_rounds else ""
            break
    if run.stop_reason:
        notes.append(f"the run ended early, by its target, after {number} of {max_rounds} rounds")
        run.log(notes[-1])
    report_rounds(run, history, target, notes)
    run.log(f"policy: {run.folder / f'round_{len(history.rounds)}' / 'policy'}")
    return history.improvement()


def collect(
    run: Run, task: Task, policy: LanguageModel, annotators: Annotator, number: int, prompts: int, responses: int, file: Path
) -> None:
    """Let the annotators judge the policy's samples, and write their feedback as JSON Lines.

    Samples that are empty or contain a NUL are skipped: files of feedback can't hold them. Every process draws the same samples; the first
    writes the feedback.
    """
    import torch

    from rlhf_lightning.stage._training import on_device
    from rlhf_lightning.training.distributed import barrier

    with run.time_stage("collect"), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(run.seed * 1000 + number)
        shuffled = [row.prompt for row in task.train_prompts()]
        random.Random(run.seed * 1000 + number).shuffle(shuffled)
        sampled = list(itertools.islice(itertools.cycle(shuffled), prompts))
        policy.model.eval()
        batch = policy.encode_prompts(sampled, run.max_response_tokens).repeat(responses)
        with on_device(run.process_device, policy.model):
            texts = run.build("rollout_sampler")(policy, batch.to(run.process_device)).responses
        groups = [
            (prompt, list(filter(_is_valid_response, texts[i * responses : (i + 1) * responses]))) for i, prompt in enumerate(sampled)
        ]
        feedback = annotators.judge([(prompt, texts) for prompt, texts in groups if texts], number=number)
        if not feedback:
            raise ConfigError(f"round {number}: no feedback: the annotators judge nothing (feedback_annotator), or all samples are empty")
        if run.is_rank_zero:
            write_atomic(file, "".join(record.model_dump_json() + "\n" for record in feedback), private=True)
        barrier()  # the others read it next


def _is_valid_response(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text


def load_feedback_so_far(run: Run, rounds: int) -> Intake:
    """Read the feedback of all rounds so far like a user's files."""
    files = tuple(str(run.folder / f"round_{number}" / "feedback.jsonl") for number in range(1, rounds + 1))
    return ingest(run, make("feedback_source", "jsonl", {"path": files})(), [make("feedback_format", "record", {})])


def max_accuracy(task: Task, reward: TrainedReward) -> float:
    """Accuracy of the hidden utility on held-out feedback, an upper bound: annotators err."""
    from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons

    orders, utility = judged_comparisons(reward.division.held_out), utility_of(task)
    return sum(utility(order.prompt, order.better) > utility(order.prompt, order.worse) for order in orders) / max(1, len(orders))


def utility_of(task: Task) -> Callable[[Prompt, str], float]:
    """The task's utility as a function of prompt and response."""
    return lambda prompt, response: task.utility(prompt, response)


def report_rounds(run: Run, history: RoundsHistory, target: float, notes: list[str]) -> None:
    """Write the report of all rounds."""
    from rlhf_lightning.policy.alarms import alarm_notes
    from rlhf_lightning.report.policy import policy_metrics, ppo_curves, result_metrics, side_by_side
    from rlhf_lightning.report.report import FeedbackCount, Target
    from rlhf_lightning.report.reward import held_out_notes, reliability_curve, reward_metrics
    from rlhf_lightning.stage._report import write_report

    last = history.rounds[-1]
    history.start.values["score"] = last.reward.model.score_texts(history.start.prompts, history.start.responses).tolist()
    # The accuracy is None without held-out comparisons.
    improvement, accuracy = history.improvement(), last.reward.measured.accuracy.get("all")
    counted = Counter(last.intake.collected)
    histories = {f"round {r.number}": r.metrics for r in history.rounds}
    write_report(
        run,
        "From feedback to a better policy",
        metrics=[
            *policy_metrics(history.start, last.measured),
            *reward_metrics(last.reward.measured, last.ceiling),
        ],
        rounds=round_results(history),
        curves=[
            *ppo_curves(histories),
            *reliability_curve({f"round {r.number}": r.reward.measured for r in history.rounds}),
        ],
        samples=side_by_side(history.start, last.measured, run.settings("evaluation").samples),
        feedback=[FeedbackCount(kind, count, last.intake.remaining[kind]) for kind, count in sorted(counted.items())],
        target=Target(f"utility up by {target:g} standard deviations of the start", improvement >= target),
        notes=[*notes, *alarm_notes(histories), *last.intake.notes, *last.reward.notes, *held_out_notes(last.reward.measured)],
        results=result_metrics(history.start, last.measured)
        | {"improvement": improvement, "rounds": float(last.number)}
        | ({} if accuracy is None else {"accuracy": accuracy.mean, "accuracy/ceiling": last.ceiling}),
    )


def round_results(history: RoundsHistory) -> list[Any]:
    """Rows of the start and of each round; a row counts the feedback of its round only."""
    from rlhf_lightning.report.policy import prompt_means
    from rlhf_lightning.report.report import RoundResult
    from rlhf_lightning.statistics.intervals import mean_interval

    rows = [RoundResult(number=0, utility=mean_interval(list(prompt_means(history.start, "utility").values())), kl=0.0)]
    collected = remaining = 0
    for outcome in history.rounds:
        rows.append(
            RoundResult(
                number=outcome.number,
                collected=outcome.intake.collected.total() - collected,
                remaining=outcome.intake.remaining.total() - remaining,
                accuracy=outcome.reward.measured.accuracy.get("all"),
                ceiling=outcome.ceiling if "all" in outcome.reward.measured.accuracy else None,
                score=outcome.measured.mean("score"),
                utility=mean_interval(list(prompt_means(outcome.measured, "utility").values())),
                kl=outcome.measured.kl,
            )
        )
        collected, remaining = outcome.intake.collected.total(), outcome.intake.remaining.total()
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
