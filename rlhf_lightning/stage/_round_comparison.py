"""Comparison of a round's policy with the initial one, and the target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.registry import make
from rlhf_lightning.rounds import artefacts
from rlhf_lightning.rounds.comparison import Pair, blind_questions, choose_pairs, win_rate
from rlhf_lightning.rounds.target import SCORE, UTILITY, WIN_RATE, Target, look_level
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.stage._evaluation import evaluate_trained
from rlhf_lightning.stage._round_steps import LearnedReward, Loop, policy_training
from rlhf_lightning.statistics.intervals import Interval, mean_interval, paired_interval

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured, MetricFunction
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.runtime.run import Run

HELD_OUT_SCORE = "held_out_score"
"""The value of the target "score"."""
COMPARED = 100_000
"""Added to a round's number for its comparison, which is another questionnaire than its feedback."""


@dataclass
class RoundOutcome:
    """Results of one round.

    Attributes:
        history: metrics of the policy's training.
        value: what the target bounds, with the interval of this look.
        ceiling: accuracy of the hidden utility on held-out feedback; None without one.
    """

    number: int
    reward: LearnedReward
    history: list[dict[str, float]]
    measured: Measured
    value: Interval
    ceiling: float | None


def target_names(choices: ComposedConfig) -> tuple[list[str], dict[str, str]]:
    """The values that a target may bound, and remedies for those that aren't measured."""
    metrics, scorers = (list(map(str, choices.config.get(group) or {})) for group in ("evaluation_metric", "rollout_scorer"))
    names = [WIN_RATE, *metrics, *scorers]
    missing = {UTILITY: "keep it among the metrics, evaluation_metric=[utility,...]"}
    if choices.settings("ppo").held_out_scorer:
        names.append(SCORE)
    else:
        missing[SCORE] = "name a reward model that the policy doesn't learn from, ppo.held_out_scorer=FOLDER"
    return names, missing


def target_metrics(run: Run, task: Task) -> dict[str, MetricFunction]:
    """Metrics for the target: the held-out reward model, and each rollout_scorer."""
    from rlhf_lightning.rollout.scoring import checked_scores
    from rlhf_lightning.stage.evaluate import build_scorer

    metrics: dict[str, MetricFunction] = {}
    path = run.settings("ppo").held_out_scorer
    if path:
        metrics[HELD_OUT_SCORE] = partial(checked_scores, make("rollout_scorer", "reward_model", {"path": path}))
    if run.config.get("rollout_scorer"):
        build_scorer(run, task)  # checks the columns
        metrics |= {name: partial(checked_scores, scorer) for name, scorer in run.build_all("rollout_scorer").items()}
    return metrics


def compare(loop: Loop, start: Measured, reward: LearnedReward) -> tuple[Measured, Interval]:
    """Measure the new policy on the held-out prompts, and look at the target."""
    run, path = loop.run, loop.folder / artefacts.MEASURED
    entry = loop.ledger.entry(loop.number, "evaluated")
    if entry is not None:
        return artefacts.read_measured(path), Interval(**entry["target"])
    after = evaluate_trained(
        run, policy_training(loop), start, loop.task, loop.policy, reward.scorer, loop.reference, loop.extra_metrics
    )  # fmt: skip
    if run.is_rank_zero:
        artefacts.write_measured(path, after)
    value = target_value(loop, start, after)
    loop.ledger.commit(loop.number, "evaluated", metrics=after.means(), kl=after.kl, target=vars(value))
    return after, value


def target_value(loop: Loop, start: Measured, after: Measured) -> Interval:
    """The value that the target bounds, with its interval.

    The interval is clustered by prompt, and accounts for a look after every round.
    """
    from rlhf_lightning.report.policy import prompt_means

    target, level = loop.settings.target, look_level(loop.settings.max_rounds)
    if target.name == WIN_RATE:
        return judged_win_rate(loop, start, after, level)
    if target.name == UTILITY:
        return improvement(start, after, level)
    return mean_interval(list(prompt_means(after, HELD_OUT_SCORE if target.name == SCORE else target.name).values()), level)


def improvement(start: Measured, after: Measured, level: float) -> Interval:
    """Rise of the mean utility, in standard deviations of the start's utility."""
    from rlhf_lightning.report.policy import prompt_means

    before = start.values[UTILITY]
    mean = sum(before) / len(before)
    deviation = max((sum((u - mean) ** 2 for u in before) / (len(before) - 1)) ** 0.5, 1e-9)
    rise = paired_interval(list(prompt_means(start, UTILITY).values()), list(prompt_means(after, UTILITY).values()), level)
    low, high = rise.low / deviation, rise.high / deviation
    return Interval((after.mean(UTILITY) - mean) / deviation, low, high, rise.n, level)


def judged_win_rate(loop: Loop, start: Measured, after: Measured, level: float) -> Interval:
    """Let the annotators compare the two policies blindly, on prompts that are not in training.

    Raises:
        ConfigError: a held-out prompt is a training prompt.
    """
    training = {prompt_text(row.prompt) for row in loop.task.train_prompts()}
    shared = next((prompt for prompt in after.prompts if prompt_text(prompt) in training), None)
    if shared is not None:
        raise ConfigError(f"the held-out prompt {prompt_text(shared)!r:.80} is a training prompt too: take it out of one of them")
    responses = zip(after.prompts, start.responses, after.responses, strict=True)
    pairs = choose_pairs([Pair(*texts) for texts in responses], loop.settings.comparisons)
    questions = blind_questions(pairs, loop.run.seed * 1000 + loop.sampling_number)
    path = loop.folder / artefacts.COMPARISON

    def compute() -> dict[str, Any]:
        groups = [(group.prompt, list(group.responses)) for group in questions]
        answers = loop.annotators.judge(groups, number=COMPARED + loop.sampling_number, kinds=("ranking",)) if groups else []
        artefacts.write_feedback(path, answers)
        return {
            "pairs": len(pairs),
            "judgements": len(answers),
            **artefacts.effort(answers, loop.annotators),
        }

    with loop.run.time_stage("compare"):
        loop.ledger.do(loop.number, "compared", compute)
    return win_rate(pairs, artefacts.read_feedback(path), level)


def ceiling(task: Task, reward: LearnedReward) -> float | None:
    """Accuracy of the hidden utility on held-out feedback, an upper bound: annotators err."""
    from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons

    if not task.has_utility:
        return None
    orders = judged_comparisons(reward.trained.division.held_out)
    return sum(task.utility(order.prompt, order.better) > task.utility(order.prompt, order.worse) for order in orders) / max(1, len(orders))


def summary_line(number: int, start: Measured, after: Measured, value: Interval, target: Target) -> str:
    """One line on a round, for the log."""
    kl = f"KL {after.kl:.2f}"
    if target.name == UTILITY:
        return f"round {number}: utility {start.mean(UTILITY):.3f} -> {after.mean(UTILITY):.3f}, {kl}"
    return f"round {number}: {target.name} {value.mean:.3f} [{value.low:.3f}, {value.high:.3f}], target {target.text}, {kl}"
