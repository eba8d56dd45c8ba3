"""Alarms on the history of a policy's training: the scorer is being gamed, or the policy collapses. Pure functions of the history.

A history is the metrics of every update, first to last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, fmean

PROXY = "objective/scores"
HELD_OUT = ("objective/held_out_scores", "objective/utility")
"""Scores that nothing is trained on, where they are logged."""
FIRST_LOOK, LOOK_EVERY = 10, 5
SHORTEST, LONGEST = 20, 100
"""A look is at the newer half of what was measured, but at so many points at least (or all) and at most."""
FALSE_ALARMS = 0.05
ALL_ALIKE = 5
"""Updates without a difference between scores."""
AROUND = 3
"""Updates that a start and a present value are averaged over."""

History = Sequence[Mapping[str, float]]


def alarms(history: History) -> dict[str, str]:
    """Every alarm by name, with what is wrong and what helps; empty text where all is well."""
    return {
        "overoptimised": overoptimised(history), "entropy": low_entropy(history), "eos": eos_collapse(history),
        "distinct": diversity_collapse(history), "constant": constant(history),
    }  # fmt: skip


def raise_alarms(history: History, metrics: dict[str, float], log: Callable[[str], None]) -> bool:
    """Add the alarms (alarm/*) to the metrics of the update after this history, and say each when it first begins; whether any stands."""
    found = alarms([*history, metrics])
    for name, text in found.items():
        metrics[f"alarm/{name}"] = float(bool(text))
        if text and not any(step.get(f"alarm/{name}") for step in history):
            log(f"alarm {name} at update {len(history) + 1}: {text}")
    return any(found.values())


def alarm_notes(histories: Mapping[str, History]) -> list[str]:
    """A sentence for each alarm that the metrics alarm/* of the histories, by label, hold: when it began and how long it stood."""
    notes = []
    for label, history in histories.items():
        for name in alarms([]):
            stood = [i for i, step in enumerate(history, 1) if step.get(f"alarm/{name}", 0.0) > 0]
            if stood:
                where = f"{label}, " if label else ""
                said = alarms(history[: stood[0]])[name]
                notes.append(f"Alarm ({where}update {stood[0]}, standing at {len(stood)} of {len(history)} updates): {said}")
    return notes


def overoptimised(history: History) -> str:
    """The score rises while a held-out score falls: more of what is paid, less of what is meant (Gao et al. 2023, "Scaling laws for reward
    model overoptimization").

    Looks at the 10th update with a held-out score and at every fifth after it; between looks the last one stands. A look takes a
    one-sided Mann-Kendall test of each trend: the score's at 5 %, the held-out score's at 5 % / (k (k + 1)) at the k-th look. These sum
    to 5 %, so that a flat held-out score of independent values raises a false alarm in at most one run of twenty, however long it is and
    however fast the score rises.
    """
    for name in HELD_OUT:
        points = [(i, step[PROXY], step[name]) for i, step in enumerate(history, 1) if name in step and PROXY in step]
        if len(points) < FIRST_LOOK:
            continue
        look = (len(points) - FIRST_LOOK) // LOOK_EVERY + 1
        seen = points[: FIRST_LOOK + (look - 1) * LOOK_EVERY]
        updates, score, held_out = zip(*seen[-min(LONGEST, max(SHORTEST, len(seen) // 2)) :], strict=True)
        level = FALSE_ALARMS / (look * (look + 1))
        if mann_kendall(score) > _quantile(FALSE_ALARMS) and -mann_kendall(held_out) > _quantile(level):
            return (
                f"from update {updates[0]} to {updates[-1]} the score rose ({_ends(score)}) and {name} fell ({_ends(held_out)}): the "
                "policy games the scorer; raise policy_kl_control.coef, stop earlier, or collect feedback on its present responses"
            )
    return ""


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
    """No response ends by itself any more and length has grown by a quarter, or all do and length has halved."""
    start, now = _start_and_now(history, "val/eos_rate")
    before, length = _start_and_now(history, "val/response_length")
    drift = f"responses went from {before:.3g} to {length:.3g} tokens"
    if now < 0.01 < start and length > 1.25 * before:
        return f"no response ends by itself any more, and {drift}: length is paid for; keep missing_eos in rollout_shaping"
    if now > 0.99 and length < 0.5 * before:
        return f"every response ends, and {drift}: ending early is paid for; look at what rollout_scorer gives to short responses"
    return ""


def diversity_collapse(history: History) -> str:
    """The share of distinct token pairs has fallen to a third. To a half it falls where a policy of a small world learns what it should."""
    start, now = _start_and_now(history, "val/distinct_2")
    if now < start / 3:
        return (
            f"distinct token pairs fell from {start:.0%} to {now:.0%}: responses repeat themselves or one another; raise "
            "policy_kl_control.coef, or look at what rollout_scorer gives to repetition"
        )
    return ""


def constant(history: History) -> str:
    """In each of the last ALL_ALIKE updates every response had the score of every other: there was nothing to learn from, and weights moved
    by the KL, by entropy and by a critic alone. Responses that are all empty or all alike end there too."""
    last = [step.get("objective/scores_std", math.nan) for step in history[-ALL_ALIKE:]]
    alone = bool(history) and history[0].get("episode") == 1  # one response an update has no other to differ from
    if len(last) == ALL_ALIKE and not any(last) and not alone:
        return (
            f"in {ALL_ALIKE} updates running all responses of an update had the same score, the last {history[-1].get(PROXY, math.nan):g}: "
            "nothing can be learned; look at rollout_scorer and at the responses, make the task pay oftener, or draw more responses"
        )
    return ""


def mann_kendall(values: Sequence[float]) -> float:
    """The standard normal score of a trend in independent values, positive where they rise; 0 where all are equal (Mann 1945; Kendall 1975,
    with his corrections for ties and for continuity)."""
    n = len(values)
    s = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    return math.copysign(max(abs(s) - 1, 0), s) / math.sqrt(variance) if variance > 0 else 0.0


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(1 - level)


def _ends(values: Sequence[float]) -> str:
    """The means of the first and the last quarter."""
    quarter = max(1, len(values) // 4)
    return f"{fmean(values[:quarter]):.3g} -> {fmean(values[-quarter:]):.3g}"


def _start_and_now(history: History, name: str) -> tuple[float, float]:
    """A metric's mean over the first and over the last updates; NaN, which no comparison holds for, while there are too few."""
    if len(history) < 2 * AROUND:
        return math.nan, math.nan
    start, now = ([step.get(name, math.nan) for step in part] for part in (history[:AROUND], history[-AROUND:]))
    return fmean(start), fmean(now)
