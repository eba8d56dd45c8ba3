"""Actions of an annotator's page: items, answers, drafts, skips."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import Connection, Row, func, select

from rlhf_lightning.collect import people
from rlhf_lightning.collect.answers import Answer, AnswerRefused, reopen, skip, store_answer, store_draft
from rlhf_lightning.collect.assignment import leave, open_assignments, renew_lease, status_of
from rlhf_lightning.collect.items import in_display_order
from rlhf_lightning.collect.people import Person
from rlhf_lightning.collect.project import Project, get_setting
from rlhf_lightning.database.tables import answer, assignment, item

MAX_KEY, MAX_REASON, RECENT, EXCERPT = 100, 500, 20, 80


def state(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Everything the page starts with."""
    people.touch(connection, person.id, project.clock())
    tasks = next_tasks(connection, project, person)
    return {"name": person.name, "questions": project.describe_questions(), "guidelines": project.guidelines, **tasks}


def submit_answer(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Store an answer; return whether it is new, and the next items."""
    sent = _answer(payload, _object(payload, "steps"))
    is_new = store_answer(connection, person.id, sent, project.questions, project.clock())
    return {"stored": True, "is_new": is_new, **next_tasks(connection, project, person)}


def submit_draft(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Store an unfinished answer."""
    steps = _object(payload, "steps")
    now = project.clock()
    renew_lease(connection, person.id, now, project.rules)
    store_draft(connection, person.id, _integer(payload, "assignment"), _integer(payload, "version"), steps, now)
    return {"saved": now}


def submit_skip(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Give an item back, optionally flagged as faulty, with a reason."""
    reason = _text(payload, "reason", MAX_REASON) if payload.get("reason") else ""
    sent = _answer(payload, {})
    skip(connection, person.id, sent, reason, bool(payload.get("flag")), project.clock())
    return next_tasks(connection, project, person)


def submit_heartbeat(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Keep the item on the annotator's screen reserved."""
    now = project.clock()
    people.touch(connection, person.id, now)
    renew_lease(connection, person.id, now, project.rules)
    return {"is_paused": is_paused(connection)}


def submit_leave(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Give others what the annotator, who closes the page, hasn't seen."""
    leave(connection, person.id, project.clock(), project.rules)
    return {}


def submit_reopen(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Show an answered or skipped item of the annotator again."""
    now = project.clock()
    row = reopen(connection, person.id, _integer(payload, "assignment"), now)
    renew_lease(connection, person.id, now, project.rules)
    return {"task": task_of(row, now)}


def recent(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """The annotator's last answers, newest first."""
    mine = (
        select(assignment.c.id, assignment.c.state, item.c.responses, func.coalesce(answer.c.time, assignment.c.created).label("time"))
        .join(item, item.c.id == assignment.c.item)
        .outerjoin(answer, answer.c.key == assignment.c.answer)
        .where(assignment.c.annotator == person.id, assignment.c.state.in_(("answered", "skipped")))
        .order_by(func.coalesce(answer.c.time, assignment.c.created).desc(), assignment.c.id.desc())
        .limit(RECENT)
    )
    rows = connection.execute(mine).all()
    return {"recent": [{"assignment": r.id, "state": r.state, "time": r.time, "excerpt": r.responses[0][:EXCERPT]} for r in rows]}


def next_tasks(connection: Connection, project: Project, person: Person) -> dict[str, Any]:
    """The annotator's open items and how many answers they gave; none while the collection is paused."""
    now, status = project.clock(), status_of(connection, person.id)
    if status.is_paused:
        return {"tasks": [], "answers": status.answers, "is_paused": True}
    rows = open_assignments(connection, person.id, now, project.rules, status)
    return {"tasks": [task_of(row, now) for row in rows], "answers": status.answers, "is_paused": False}


def task_of(row: Row[Any], now: float) -> dict[str, Any]:
    """An assignment for the page: texts in display order, without models or gold answers."""
    return {
        "assignment": row.id,
        "version": row.version,
        "reserved": row.leased_until - now,
        "prompt": row.prompt,
        "responses": in_display_order(row.responses, row.display_order),
        "steps": (row.draft if row.draft_version == row.version else None) or row.steps or {},
    }


def is_paused(connection: Connection) -> bool:
    """True if the manager has paused the collection."""
    return bool(get_setting(connection, "is_paused", False))


def _answer(payload: dict[str, Any], steps: dict[str, Any]) -> Answer:
    return Answer(
        key=_key(payload),
        assignment=_integer(payload, "assignment"),
        version=_integer(payload, "version"),
        steps=steps,
        seconds=_number(payload, "seconds"),
        elapsed=_number(payload, "elapsed"),
        client_time=_number(payload, "client_time") if payload.get("client_time") is not None else None,
    )


def _text(payload: dict[str, Any], name: str, most: int) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise AnswerRefused(422, f"{name} must be text of 1 to {most} characters")
    return value


def _key(payload: dict[str, Any]) -> str:
    """The page's key of an answer, which is stored as plain text."""
    key = _text(payload, "key", MAX_KEY)
    if not (key.isascii() and key.isprintable()):
        raise AnswerRefused(422, "key must be printable ASCII")
    return key


def _integer(payload: dict[str, Any], name: str) -> int:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise AnswerRefused(422, f"{name} must be a whole number")
    return value


def _number(payload: dict[str, Any], name: str) -> float:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AnswerRefused(422, f"{name} must be a number")
    return float(value)


def _object(payload: dict[str, Any], name: str) -> dict[str, Any]:
    value = payload.get(name)
    if not isinstance(value, dict):
        raise AnswerRefused(422, f"{name} must be an object")
    return value
