"""The manager's figures: progress, speed, agreement, annotators."""

from __future__ import annotations

import json
import statistics
from typing import Any

from sqlalchemy import Connection, case, func, select

from rlhf_lightning.collect.project import counts
from rlhf_lightning.database.records import record_rows
from rlhf_lightning.database.tables import annotator, answer, assignment, item

HOUR = 3600.0
MIN_ACTIVE_SECONDS = 1.0
"""An answer in less active time counts as too fast."""
MAX_AGREEMENT_ANSWERS = 5_000


def progress(connection: Connection, now: float) -> dict[str, Any]:
    """Counts of items and answers, and the answers of the last hour."""
    states = {state: count for state, count in connection.execute(select(assignment.c.state, func.count()).group_by(assignment.c.state))}
    recent = (answer.c.time > now - HOUR) & (answer.c.steps != {})  # a skip has no steps
    last_hour, started = connection.execute(select(func.count(), func.min(answer.c.time)).where(recent)).one()
    hours = max(now - started, 60.0) / HOUR if started is not None else 1.0
    state = counts(connection)
    rate = last_hour / hours
    remaining = state["slots"] - state["answers"]
    return {
        **state,
        "open": states.get("open", 0),
        "skipped": states.get("skipped", 0),
        "surplus": states.get("surplus", 0),
        "last_hour": last_hour,
        "per_hour": round(rate, 1),
        "hours_left": round(remaining / rate, 1) if rate else None,
    }


def annotator_table(connection: Connection) -> list[dict[str, Any]]:
    """One row for each annotator: answers, seconds, gold accuracy, first-position share, skips."""
    is_answered = assignment.c.state.in_(("answered", "imported"))
    columns = (
        assignment.c.annotator,
        func.max(answer.c.time).label("newest"),
        func.sum(case((is_answered, 1), else_=0)).label("answers"),
        func.sum(case((assignment.c.state == "skipped", 1), else_=0)).label("skips"),
        func.sum(case((is_answered & assignment.c.gold_right.is_not(None), 1), else_=0)).label("gold"),
        func.sum(case((is_answered & assignment.c.gold_right, 1), else_=0)).label("gold_right"),
    )
    per_person = select(*columns).outerjoin(answer, answer.c.key == assignment.c.answer).group_by(assignment.c.annotator)
    of_person = {row.annotator: row for row in connection.execute(per_person)}
    seconds = _seconds(connection)
    rows = []
    for person in connection.execute(select(annotator).where(annotator.c.role == "annotator").order_by(annotator.c.name)):
        row, times = of_person.get(person.id), seconds.get(person.id, [])
        rows.append(
            {
                "id": person.id,
                "name": person.name,
                "is_active": person.is_active,
                "last_seen": max(filter(None, (person.last_seen, row and row.newest)), default=None),
                "answers": int(row.answers) if row else 0,
                "skips": int(row.skips) if row else 0,
                "gold": int(row.gold) if row else 0,
                "gold_accuracy": row.gold_right / row.gold if row and row.gold else None,
                "median_seconds": statistics.median(times) if times else None,
                "too_fast": sum(time < MIN_ACTIVE_SECONDS for time in times) / len(times) if times else None,
            }
        )
    return rows


def agreement(connection: Connection) -> dict[str, Any]:
    """Krippendorff's alpha by kind, and each annotator's reliability and first-position share.

    On the newest MAX_AGREEMENT_ANSWERS answers.
    """
    from rlhf_lightning.feedback.quality.agreement import agreement
    from rlhf_lightning.feedback.quality.reliability import annotator_reliability
    from rlhf_lightning.feedback.quality.votes import tables_of
    from rlhf_lightning.flow import Feedback

    records = [Feedback.model_validate_json(json.dumps(row)) for row in record_rows(connection, skips=False, limit=MAX_AGREEMENT_ANSWERS)]
    if not records:
        return {"alpha": [], "annotators": {}}
    tables = tables_of(records)
    alpha = [
        {"kind": result.kind, "aspect": result.aspect, "alpha": result.alpha, "low": result.low, "high": result.high, "units": result.units}
        for result in agreement(tables)
    ]
    people = {
        person.name: {"reliability": person.combined, "first": person.habits.first} for person in annotator_reliability(records, tables)
    }
    return {"alpha": alpha, "annotators": people}


def flags(connection: Connection, limit: int = 50) -> list[dict[str, Any]]:
    """The newest skipped items, flagged or not, with their reasons."""
    rows = connection.execute(
        select(annotator.c.name, assignment.c.reason, item.c.id, item.c.responses, answer.c.records)
        .join(annotator, annotator.c.id == assignment.c.annotator)
        .join(item, item.c.id == assignment.c.item)
        .join(answer, answer.c.key == assignment.c.answer)
        .where(assignment.c.state == "skipped")
        .order_by(assignment.c.id.desc())
        .limit(limit)
    )
    return [
        {
            "annotator": row.name,
            "is_flagged": row.records[0]["judgement"]["flagged"],
            "reason": row.reason or "",
            "item": row.id,
            "excerpt": row.responses[0][:80],
        }
        for row in rows
    ]


def _seconds(connection: Connection) -> dict[int, list[float]]:
    """Active seconds of each annotator's current answers."""
    current = select(assignment.c.annotator, answer.c.seconds).join(answer, answer.c.key == assignment.c.answer).where(answer.c.steps != {})
    seconds: dict[int, list[float]] = {}
    for person, value in connection.execute(current):
        seconds.setdefault(person, []).append(value)
    return seconds
