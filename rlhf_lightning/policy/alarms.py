"""Alarms of a policy's training: reward hacking, and collapse of the policy.

Pure functions of a history, the metrics of every update, first to last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, fmean, linear_regression

from rlhf_lightning.policy.overoptimisation import distance, fit_score

PROXY = "objective/scores"
HELD_OUT = ("objective/held_out_scores", "objective/utility")
"""Metrics of scorers for monitoring."""
FIRST_LOOK, LOOK_EVERY = 10, 5
SHORTEST, LONGEST = 20, 100
"""Limits on the points of a look, which takes the newer half of the measurements."""
FALSE_ALARMS = 0.05
ENOUGH, AGREEMENT = 8, 0.2
"""Measurements of the correlation before the first look, and the least that it must be."""
IN_SIGHT = 2.0
"""A predicted peak beyond this multiple of the largest distance is an extrapolation."""
ALL_ALIKE = 5
"""Updates without a difference between scores."""
AROUND = 3
"""Updates in the mean of a start value and of a present value."""

History = Sequence[Mapping[str, float]]


def alarms(history: History) -> dict[str, str]:
    """Every alarm by name, with cause and remedy; an empty text if there is none."""
    return {
        "overoptimised": overoptimisation(history), "peak": held_out_peak(history), "entropy": low_entropy(history),
        "eos": eos_collapse(history), "distinct": diversity_collapse(history), "constant": constant_scores(history),
    }  # fmt: skip


def raise_alarms(history: History, metrics: dict[str, float], log: Callable[[str], None]) -> set[str]:
    """Add alarm/* to the metrics of the next update; log each alarm the first time.

    Returns the names of those that are raised.
    """
    texts = alarms([*history, metrics])
    for name, text in texts.items():
        metrics[f"alarm/{name}"] = float(bool(text))
        if text and not any(step.get(f"alarm/{name}") for step in history):
            log(f"alarm {name} at update {len(history) + 1}: {text}")
    return {name for name, text in texts.items() if text}


def alarm_notes(histories: Mapping[str, History]) -> list[str]:
    """Describe each alarm (alarm/*) in the histories, by label: its first update and its duration."""
    notes = []
    for label, history in histories.items():
        for name in alarms([]):
            updates = [i for i, step in enumerate(history, 1) if step.get(f"alarm/{name}", 0.0) > 0]
            if updates:
                prefix = f"{label}, " if label else ""
                text = alarms(history[: updates[0]])[name]
                notes.append(f"Alarm ({prefix}update {updates[0]}, raised in {len(updates)} of {len(history)} updates): {text}")
    return notes


def overoptimisation(history: History) -> str:
    """The score rises while a held-out score falls (Gao et al. 2023, reward model overoptimization).

    Looks at the 10th update with a held-out score and at every fifth after it; between looks the last result holds. A look takes a
    one-sided Mann-Kendall test of each trend: the score's at 5 %, the held-out score's at 5 % / (k (k + 1)) at the k-th look. These sum
    to 5 %: a flat held-out score of independent values raises a false alarm in at most one run of twenty, however long it is and
    however fast the score rises.
    """
    for name in HELD_OUT:
        points = [(i, step[PROXY], step[name]) for i, step in enumerate(history, 1) if name in step and PROXY in step]
        if len(points) < FIRST_LOOK:
            continue
        look = (len(points) - FIRST_LOOK) // LOOK_EVERY + 1
        considered = points[: FIRST_LOOK + (look - 1) * LOOK_EVERY]
        updates, score, held_out = zip(*considered[-min(LONGEST, max(SHORTEST, len(considered) // 2)) :], strict=True)
        level = FALSE_ALARMS / (look * (look + 1))
        if mann_kendall(score) > _quantile(FALSE_ALARMS) and -mann_kendall(held_out) > _quantile(level):
            return (
                f"from update {updates[0]} to {updates[-1]} the score rose ({_ends(score)}) and {name} fell ({_ends(held_out)}): the "
                "policy games the scorer; raise policy_kl_control.coef, stop earlier, or collect feedback on its present responses"
            )
    return ""


def held_out_peak(history: History) -> str:
    """The held-out score is about to fall: it hardly agrees with the score on responses to a prompt.

    A small step of policy optimisation changes the mean of any quantity of the responses by its covariance with the advantages (Price's
    equation, G. R. Price 1970; the policy gradient of one score, read for another). So the held-out score rises while its correlation with
    the trained score is positive, and peaks where that is zero; the correlation falls before a loss can be measured in the means. It is
    fitted as linear in the distance sqrt(KL), and compared with AGREEMENT at the present distance: after the first ENOUGH measurements.
    A held-out score that never agreed with the trained one alarms too.
    """
    for name in HELD_OUT:
        rows = [step for step in history if f"{name}_correlation" in step and "objective/kl" in step]
        if len(rows) < ENOUGH:
            continue
        distances, values = [distance(row["objective/kl"]) for row in rows], [row[f"{name}_correlation"] for row in rows]
        if len(set(distances)) == 1:
            continue
        slope, intercept = linear_regression(distances, values)
        present = intercept + slope * fmean(distances[-AROUND:])
        if present < AGREEMENT:
            return (
                f"over responses to a prompt, the score and {name} correlate by {present:.2f} now, and by {intercept:.2f} at first: what "
                f"raises the score hardly raises {name} any more{fitted_peak(history, name)}; stop here, raise policy_kl_control.coef, or "
                "collect feedback on present responses"
            )
    return ""


def fitted_peak(history: History, name: str) -> str:
    """The KL at which a held-out score has its predicted peak, for a message; empty if it isn't in sight."""
    points = [(distance(step["objective/kl"]), step[name]) for step in history if name in step and "objective/kl" in step]
    curve = fit_score([x for x, _ in points], [y for _, y in points])
    if curve is None or curve.peak > IN_SIGHT * max(x for x, _ in points):
        return ""
    return f", whose predicted peak is at a KL of {curve.peak_kl:.3g} nats"


def low_entropy(history: History) -> str:
    """The entropy per token has fallen to a tenth of the start's."""
    start, now = _start_and_now(history, "policy/entropy_avg")
    if now < 0.1 * start:
        return (
            f"the entropy fell from {start:.3g} to {now:.3g} nats a token: the policy hardly varies any more and stops learning; raise "
            "policy_kl_control.coef or ppo.entropy_coef, or lower ppo.learning_rate"
        )
    return ""


def eos_collapse(history: History) -> str:
    """No response ends any more and length grew by a quarter, or all end and length halved."""
    start, now = _start_and_now(history, "val/eos_rate")
    before, length = _start_and_now(history, "val/response_length")
    drift = f"responses went from {before:.3g} to {length:.3g} tokens"
    if now < 0.01 < start and length > 1.25 * before:
        return f"no response ends by itself any more, and {drift}: length is paid for; keep missing_eos in rollout_shaping"
    if now > 0.99 and length < 0.5 * before:
        return f"every response ends, and {drift}: ending early is paid for; look at what rollout_scorer gives to short responses"
    return ""


def diversity_collapse(history: History) -> str:
    """The fraction of distinct token pairs has fallen to a third.

    A policy of a small task that learns well can fall to a half.
    """
    start, now = _start_and_now(history, "val/distinct_2")
    if now < start / 3:
        return (
            f"distinct token pairs fell from {start:.0%} to {now:.0%}: responses repeat themselves or one another; raise "
            "policy_kl_control.coef, or look at what rollout_scorer gives to repetition"
        )
    return ""


def constant_scores(history: History) -> str:
    """In each of the last ALL_ALIKE updates all responses had the same score.

    Only the KL, the entropy and the critic then move the weights. Empty or equal responses have the same effect.
    """
    last = [step.get("objective/scores_std", math.nan) for step in history[-ALL_ALIKE:]]
    single = bool(history) and history[0].get("episode") == 1  # one response per update has no other to differ from
    if len(last) == ALL_ALIKE and not any(last) and not single:
        return (
            f"in {ALL_ALIKE} updates running all responses of an update had the same score, the last {history[-1].get(PROXY, math.nan):g}: "
            "nothing can be learned; look at rollout_scorer and at the responses, make the task pay oftener, or draw more responses"
        )
    return ""


def mann_kendall(values: Sequence[float]) -> float:
    """Standard normal score of a trend in independent values, positive if they rise; 0 if all are equal.

    Mann 1945; Kendall 1975, with his corrections for ties and for continuity.
    """
    n = len(values)
    s = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    return math.copysign(max(abs(s) - 1, 0), s) / math.sqrt(variance) if variance > 0 else 0.0


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(1 - level)


def _ends(values: Sequence[float]) -> str:
    """Means of the first and the last quarter, formatted."""
    quarter = max(1, len(values) // 4)
    return f"{fmean(values[:quarter]):.3g} -> {fmean(values[-quarter:]):.3g}"


def _start_and_now(history: History, name: str) -> tuple[float, float]:
    """A metric's mean over the first and the last updates; NaN for a short history."""
    if len(history) < 2 * AROUND:
        return math.nan, math.nan
    start, now = ([step.get(name, math.nan) for step in part] for part in (history[:AROUND], history[-AROUND:]))
    return fmean(start), fmean(now)
