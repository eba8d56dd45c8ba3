"""Answers, drafts, skips and flags of one annotator, each in one writing transaction.

An answer is appended, never changed: a reopened one is stored as the next version. Its key comes from the page, so that a resent answer
changes nothing. A skip is an answer without steps, whose record says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from rlhf_lightning.collect.assignment import COUNT, TURN, UPDATE, take_slot
from rlhf_lightning.collect.items import in_display_order, prompt_from_json
from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.database.tables import answer, assignment, draft, event
from rlhf_lightning.flow import Feedback, Skip

MAX_SECONDS = 86_400.0
_STORED = select(answer.c.assignment).where(answer.c.key == bindparam("sent")).correlate(None).scalar_subquery().label("stored")
_TURN_OF = TURN.add_columns(_STORED).where(assignment.c.id == bindparam("row"), assignment.c.annotator == bindparam("person"))
_APPEND, _KEEP, _LOG = insert(answer), insert(draft), insert(event)
_REPLACE, _FORGET = (statement.where(draft.c.assignment == bindparam("row")) for statement in (update(draft), delete(draft)))


class AnswerRefused(Exception):
    """An answer that isn't stored. `status` is the HTTP status; the text is for the annotator."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An answer as the page sends it.

    Attributes:
        key: unique, made by the page.
        version: of the assignment when the page got it.
        steps: the value of each step, "NAME" for a question of the item and "NAME/POSITION" for one of a response.
        seconds: active seconds. elapsed: seconds since the page showed it.
        client_time: of the page's clock, seconds since 1970; kept, never relied on.
    """

    key: str
    assignment: int
    version: int
    steps: Mapping[str, Any]
    seconds: float
    elapsed: float
    client_time: float | None = None


def store_answer(connection: Connection, annotator_id: int, sent: Answer, questions: Mapping[str, Question], now: float) -> bool:
    """Store an answer; return False if it was stored before.

    An answer to a lease that ran out counts if the item has a free slot, and is kept without counting if it has none.

    Raises:
        AnswerRefused: not this annotator's assignment (404), answered elsewhere since (409), or an invalid value (422).
    """
    row = assignment_of(connection, annotator_id, sent.assignment, sent.key)
    if is_resent(row):
        return False
    if row.version != sent.version or row.state == "skipped":
        raise AnswerRefused(409, "this item was answered or skipped in another window")
    view = judged_view(row, sent, now)
    steps = parse_steps(sent.steps, questions, view)
    counts = row.state in ("open", "answered") or take_slot(connection, row.item)
    state = {"state": "answered" if counts else "surplus", "reason": None, "gold_right": gold_verdict(row, steps, questions)}
    append_answer(connection, row, sent, steps, step_records(steps, questions, view), state, now)
    if counts and row.state != "answered":
        connection.execute(COUNT, {"row": row.item, "freed": 0, "added": 1})
    return True


def is_resent(row: Row[Any]) -> bool:
    """True if this answer is stored already. Raises AnswerRefused for a key of another item."""
    if row.stored not in (None, row.id):
        raise AnswerRefused(409, "this answer's key belongs to another item")
    return row.stored is not None


def append_answer(
    connection: Connection, row: Row[Any], sent: Answer, steps: Any, records: Sequence[Feedback], state: Mapping[str, Any], now: float
) -> None:
    """Store the next version of an assignment's answer, and its new state; the draft is done."""
    values = {
        "key": sent.key,
        "assignment": row.id,
        "version": row.version,
        "steps": steps,
        "records": [record.model_dump(mode="json") for record in records],
        "seconds": _clip_seconds(sent.seconds),
        "elapsed": _clip_seconds(sent.elapsed),
        "client_time": sent.client_time,
        "time": now,
    }
    connection.execute(_APPEND, values)
    connection.execute(UPDATE, {"row": row.id, "version": row.version + 1, "answer": sent.key, **state})
    if row.draft_version is not None:
        connection.execute(_FORGET, {"row": row.id})


def store_draft(connection: Connection, annotator_id: int, assignment_id: int, version: int, steps: Any, now: float) -> None:
    """Store an unfinished answer. Raises AnswerRefused for an older version of the assignment."""
    row = assignment_of(connection, annotator_id, assignment_id)
    if row.version != version or row.state in ("skipped", "surplus"):
        raise AnswerRefused(409, "this item was answered or skipped in another window")
    values = {"version": version, "steps": steps, "time": now}
    if row.draft_version is None:
        connection.execute(_KEEP, {"assignment": row.id, **values})
    else:
        connection.execute(_REPLACE, {"row": row.id, **values})


def skip(connection: Connection, annotator_id: int, sent: Answer, reason: str, flag: bool, now: float) -> None:
    """Give an item back to others, with the reason, and take back an answer to it; skipped twice is once.

    Raises:
        AnswerRefused: not this annotator's assignment (404), or answered elsewhere since (409).
    """
    row = assignment_of(connection, annotator_id, sent.assignment, sent.key)
    if is_resent(row) or row.state == "skipped":
        return
    if row.version != sent.version:
        raise AnswerRefused(409, "this item was answered in another window")
    if row.state in ("open", "answered"):
        connection.execute(COUNT, {"row": row.item, "freed": 1, "added": -1 if row.state == "answered" else 0})
    view = judged_view(row, sent, now)
    record = view.record(Skip(reason=reason or None, flagged=flag), *range(len(view.responses)))
    append_answer(connection, row, sent, {}, [record], {"state": "skipped", "reason": reason, "gold_right": None}, now)
    log(connection, "flag" if flag else "skip", now, annotator_id, row.id, {"reason": reason})


def reopen(connection: Connection, annotator_id: int, assignment_id: int, now: float) -> Row[Any]:
    """Reopen an answered or skipped assignment; its answer counts until the next version.

    Raises:
        AnswerRefused: not this annotator's (404), or skipped and answered by others since (409).
    """
    row = assignment_of(connection, annotator_id, assignment_id)
    if row.state == "skipped":
        if not take_slot(connection, row.item):
            raise AnswerRefused(409, "others have answered this item since")
        connection.execute(UPDATE, {"row": row.id, "state": "open", "leased_until": now})
    log(connection, "reopen", now, annotator_id, row.id)
    return assignment_of(connection, annotator_id, assignment_id)


def assignment_of(connection: Connection, annotator_id: int, assignment_id: int, key: str = "") -> Row[Any]:
    """An assignment of this annotator (TURN), and in `stored` that of the answer with this key.

    Raises:
        AnswerRefused: another annotator's assignment (404).
    """
    row = connection.execute(_TURN_OF, {"row": assignment_id, "person": annotator_id, "sent": key}).first()
    if row is None:
        raise AnswerRefused(404, "no such item")
    return row


def log(
    connection: Connection, kind: str, now: float, annotator_id: int | None, assignment_id: int | None = None, detail: Any = None
) -> None:
    """Append to the audit log."""
    connection.execute(_LOG, {"time": now, "annotator": annotator_id, "assignment": assignment_id, "kind": kind, "detail": detail})


def judged_view(row: Row[Any], sent: Answer, now: float) -> ItemView:
    """The item in the display order of an assignment, with who answers it, when, and how long it took."""
    return ItemView(
        prompt_from_json(row.prompt),
        in_display_order(row.responses, row.display_order) or [],
        in_display_order(row.models, row.display_order),
        annotator=row.name,
        time=datetime.fromtimestamp(now, UTC),
        seconds=round(_clip_seconds(sent.seconds), 3),
        source=row.source,
        origin=f"collection:{row.item}",  # one data set, whose lines are items
    )


def _clip_seconds(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_SECONDS)


def step_names(questions: Mapping[str, Question], responses: int) -> list[tuple[str, str, int]]:
    """Name, question and display position of each step, in the order in which they are asked."""
    steps = []
    for name, question in questions.items():
        if question.scope == "item":
            low, high = question.responses
            steps += [(name, name, 0)] if low <= responses <= high else []
        else:
            steps += [(f"{name}/{position}", name, position) for position in range(responses)]
    return steps


def parse_steps(values: Mapping[str, Any], questions: Mapping[str, Question], view: ItemView) -> dict[str, Any]:
    """Check the values of all steps. Raises AnswerRefused (422) that names the first wrong step."""
    steps = step_names(questions, len(view.responses))
    unknown = values.keys() - {step for step, _, _ in steps}
    if unknown:
        raise AnswerRefused(422, f"no question {sorted(unknown)[0]}")
    parsed = {}
    for step, name, position in steps:
        if values.get(step) is None:
            if questions[name].required:
                raise AnswerRefused(422, f"{step} has no answer")
            continue
        try:
            parsed[step] = questions[name].parse(values[step], view, position)
        except ValueError as cause:
            raise AnswerRefused(422, f"{step}: {cause}") from cause
    if not parsed:
        raise AnswerRefused(422, "the answer is empty")
    return parsed


def step_records(steps: Mapping[str, Any], questions: Mapping[str, Question], view: ItemView) -> list[Feedback]:
    """The feedback records of all steps."""
    records: list[Feedback] = []
    for step, name, position in step_names(questions, len(view.responses)):
        if step in steps:
            records += questions[name].feedback(steps[step], view, position)
    return records


def gold_verdict(row: Row[Any], steps: Mapping[str, Any], questions: Mapping[str, Question]) -> bool | None:
    """Compare the answers to a gold item with those expected; None for other items."""
    if row.gold is None:
        return None
    order = list(row.display_order)
    expected = {}
    for step, value in row.gold.items():
        name, _, index = step.partition("/")
        expected[f"{name}/{order.index(int(index))}" if index else name] = questions[name].in_display_order(value, order)
    return all(steps.get(step) == value for step, value in expected.items())
