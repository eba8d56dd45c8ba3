"""The report of stage=rounds: one page for all rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.rounds.ledger import DROPPED, START, summary
from rlhf_lightning.rounds.target import UTILITY, WIN_RATE
from rlhf_lightning.stage._round_steps import Loop

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured
    from rlhf_lightning.policy.overoptimisation import ScoreCurve
    from rlhf_lightning.report.report import Curve, RoundResult, Table
    from rlhf_lightning.stage._round_comparison import RoundOutcome

History = Sequence[Mapping[str, float]]


def report_rounds(loop: Loop, start: Measured, outcomes: Sequence[RoundOutcome]) -> None:
    """Write the report of all rounds."""
    from rlhf_lightning.policy.alarms import alarm_notes
    from rlhf_lightning.report.policy import policy_metrics, result_metrics, side_by_side
    from rlhf_lightning.report.report import FeedbackCount, Target
    from rlhf_lightning.report.reward import held_out_notes, reliability_curve, reward_metrics
    from rlhf_lightning.stage._report import write_report

    last, run, target = outcomes[-1], loop.run, loop.settings.target
    trained, intake = last.reward.trained, last.reward.intake
    start.values["score"] = trained.model.score_texts(start.prompts, start.responses).tolist()
    # The accuracy is None without held-out comparisons.
    accuracy, counted = trained.measured.accuracy.get("all"), Counter(intake.collected)
    histories = {f"round {outcome.number}": outcome.history for outcome in outcomes}
    peaks = {label: fit for label, history in histories.items() if (fit := fitted_curve(history)) is not None}
    dropped = [f"round {number} was dropped: its feedback is left out" for number in loop.ledger.dropped_rounds]
    write_report(
        run,
        "From feedback to a better policy",
        metrics=[*policy_metrics(start, last.measured), *reward_metrics(trained.measured, last.ceiling)],
        rounds=round_results(loop, start, outcomes),
        curves=[
            *policy_curves(loop, histories),
            *overoptimisation_curves(histories, peaks),
            *reliability_curve({f"round {outcome.number}": outcome.reward.trained.measured for outcome in outcomes}),
        ],
        samples=side_by_side(start, last.measured, run.settings("evaluation").samples),
        feedback=[FeedbackCount(kind, count, intake.remaining[kind]) for kind, count in sorted(counted.items())],
        target=Target(target.description, target.is_met(last.value)),
        tables=[ledger_table(loop)],
        notes=[
            *loop.notes, *dropped, *peak_notes(histories, peaks), *alarm_notes(histories), *intake.notes, *trained.notes,
            *held_out_notes(trained.measured),
        ],
        results=result_metrics(start, last.measured) | target_results(loop, last) | {"rounds": float(len(outcomes))}
        | ({} if accuracy is None else {"accuracy": accuracy.mean})
        | ({} if accuracy is None or last.ceiling is None else {"accuracy/ceiling": last.ceiling}),
    )  # fmt: skip


def target_results(loop: Loop, last: RoundOutcome) -> dict[str, float]:
    """The value of the target, with its interval unless it is the rise of the utility."""
    if loop.settings.target.name == UTILITY:
        return {"improvement": last.value.mean}
    return {"target": last.value.mean, "target/low": last.value.low, "target/high": last.value.high}


def round_results(loop: Loop, start: Measured, outcomes: Sequence[RoundOutcome]) -> list[RoundResult]:
    """Rows of the start and of each round; a row counts the feedback of its round only."""
    from rlhf_lightning.report.policy import prompt_means
    from rlhf_lightning.report.report import RoundResult
    from rlhf_lightning.statistics.intervals import Interval, mean_interval

    def utility(measured: Measured) -> Interval | None:
        return mean_interval(list(prompt_means(measured, UTILITY).values())) if UTILITY in measured.values else None

    rows = [RoundResult(number=START, utility=utility(start), kl=0.0)]
    collected = remaining = 0
    is_win_rate = loop.settings.target.name == WIN_RATE
    for outcome in outcomes:
        intake, accuracy = outcome.reward.intake, outcome.reward.trained.measured.accuracy.get("all")
        rows.append(
            RoundResult(
                number=outcome.number,
                collected=intake.collected.total() - collected,
                remaining=intake.remaining.total() - remaining,
                accuracy=accuracy,
                ceiling=outcome.ceiling if accuracy is not None else None,
                score=outcome.measured.mean("score"),
                utility=utility(outcome.measured),
                win_rate=outcome.value if is_win_rate else None,
                kl=outcome.measured.kl,
            )
        )
        collected, remaining = intake.collected.total(), intake.remaining.total()
    return rows


def ledger_table(loop: Loop) -> Table:
    """Judgements, people's time, cost and machine time of each round."""
    from rlhf_lightning.report.report import Table

    names = ("responses", "judgements", "people_seconds", "cost", "seconds")
    heads = {name.replace("_", "'s "): name for name in names}
    rows: list[list[str | float | None]] = []
    for row in summary(loop.ledger.entries):
        label = "start" if row["round"] == START else f"{row['round']}{' (dropped)' if row['state'] == DROPPED else ''}"
        rows.append([label, *(row[name] for name in heads.values())])
    return Table(title="Effort", heads=["round", *heads], rows=rows, part="Ledger", digits=0, in_terminal=False)


def policy_curves(loop: Loop, histories: Mapping[str, History]) -> list[Curve]:
    """The curves of the policy's trainings."""
    from rlhf_lightning.report.policy import curve, evaluation_curves, ppo_curves

    if loop.settings.train == "ppo":
        return ppo_curves(histories)
    if loop.settings.train == "sft_best":
        return [curve("Loss", "step", "nats per token", histories, "sft/loss"), *evaluation_curves(histories)]
    curves = [curve(title, "step", "", histories, metric) for title, metric in (("Loss", "loss"), ("Margin", "rewards/margins"))]
    return [*curves, *evaluation_curves(histories)]


def fitted_curve(history: History) -> ScoreCurve | None:
    """The held-out score of a training as a function of its distance from the start; None without one."""
    from rlhf_lightning.policy.overoptimisation import fit_score

    points = gold_points(history)
    return fit_score([x for x, _ in points], [y for _, y in points])


def gold_points(history: History) -> list[tuple[float, float]]:
    """Distance sqrt(KL) and held-out score of every update that measured one, by distance."""
    from rlhf_lightning.policy.alarms import HELD_OUT
    from rlhf_lightning.policy.overoptimisation import distance

    name = next((name for name in HELD_OUT if any(name in step for step in history)), None)
    points = [(distance(step["objective/kl"]), step[name]) for step in history if name in step] if name else []
    return sorted(points)


def overoptimisation_curves(histories: Mapping[str, History], peaks: Mapping[str, ScoreCurve]) -> list[Curve]:
    """The held-out score against the distance, measured and fitted, with the predicted peak."""
    from rlhf_lightning.report.report import Curve, Level, Series

    curves = []
    for label, fit in peaks.items():
        points = gold_points(histories[label])
        xs, ys = [x for x, _ in points], [y for _, y in points]
        series = [Series("measured", xs, ys), Series("fitted", xs, [fit.score(x) for x in xs])]
        marks = [Level("predicted peak", fit.peak)] if xs[0] <= fit.peak <= xs[-1] else []
        note = "d (alpha - beta log d), Gao et al. 2022"
        curves.append(Curve(f"Held-out score by distance, {label}", "square root of the KL", "", series, marks=marks, note=note))
    return curves


def peak_notes(histories: Mapping[str, History], peaks: Mapping[str, ScoreCurve]) -> list[str]:
    """The predicted peak of the held-out score of each training, and the loss beyond it."""
    notes = []
    for label, fit in peaks.items():
        last = gold_points(histories[label])[-1][0]
        if last < fit.peak:
            prediction = "no peak" if fit.peak > 10 * last else f"a peak at a KL of {fit.peak_kl:.3g} nats"
            notes.append(f"{label}: the held-out score predicts {prediction}, beyond the {last**2:.3g} of the training")
        else:
            notes.append(
                f"{label}: the held-out score predicts its peak at a KL of {fit.peak_kl:.3g} nats, and the training went to {last**2:.3g}, "
                f"with a predicted loss of {fit.loss(last):.0%} of the gain: raise policy_kl_control.coef, or collect more feedback"
            )
    return notes
