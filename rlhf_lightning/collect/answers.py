"""Answers, drafts, skips and flags of one annotator, each in one writing transaction.

An answer is appended, never changed: a reopened one is stored as the next version. Its key comes from the page, so that a resent answer
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from rlhf_lightning.collect.assignment import return_slot, take_slot
from rlhf_lightning.collect.items import in_display_order, prompt_from_json
from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.database.tables import annotator, answer, assignment, draft, event, item

MAX_SECONDS = 86_400.0


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
    # A resent answer.
    stored = connection.execute(select(answer.c.assignment).where(answer.c.key == sent.key)).first()
    row = assignment_of(connection, annotator_id, sent.assignment)
    if stored is not None:
        if stored.assignment != row.id:
            raise AnswerRefused(409, "this answer's key belongs to another item")
        return False
    if row.version != sent.version or row.state == "skipped":
        raise AnswerRefused(409, "this item was answered or skipped in another window")

    # The records.
    of_item = connection.execute(select(item).where(item.c.id == row.item)).one()
    seconds = min(max(sent.seconds, 0.0), MAX_SECONDS)
    view = replace(
        view_of(of_item, row.display_order),
        annotator=connection.scalar(select(annotator.c.name).where(annotator.c.id == annotator_id)),
        time=datetime.fromtimestamp(now, UTC),
        seconds=round(seconds, 3),
        origin=f"item {of_item.id}",
    )
    steps = parse_steps(sent.steps, questions, view)
    records = [record.model_dump(mode="json") for record in step_records(steps, questions, view)]

    # The state of the assignment and of its item's slots.
    counts = row.state in ("open", "answered") or take_slot(connection, row.item)
    values = {"assignment": row.id, "version": row.version, "steps": steps, "records": records, "seconds": seconds}
    times = {"elapsed": min(max(sent.elapsed, 0.0), MAX_SECONDS), "client_time": sent.client_time, "time": now}
    connection.execute(insert(answer).values(key=sent.key, **values, **times))
    state = {"state": "answered" if counts else "surplus", "version": row.version + 1, "answer": sent.key, "reason": None}
    connection.execute(
        update(assignment).where(assignment.c.id == row.id).values(**state, gold_right=gold_verdict(of_item, row, steps, questions))
    )
    if counts and row.state != "answered":
        connection.execute(update(item).where(item.c.id == row.item).values(answered=item.c.answered + 1))
    connection.execute(delete(draft).where(draft.c.assignment == row.id))
    return True


def store_draft(connection: Connection, annotator_id: int, assignment_id: int, version: int, steps: Any, now: float) -> None:
    """Store an unfinished answer. Raises AnswerRefused for an older version of the assignment."""
    row = assignment_of(connection, annotator_id, assignment_id)
    if row.version != version or row.state in ("skipped", "surplus"):
        raise AnswerRefused(409, "this item was answered or skipped in another window")
    connection.execute(delete(draft).where(draft.c.assignment == row.id))
    connection.execute(insert(draft).values(assignment=row.id, version=version, steps=steps, time=now))


def skip(connection: Connection, annotator_id: int, assignment_id: int, reason: str, flag: bool, now: float) -> None:
    """Give an item back to others, with the reason; skipped twice is skipped once. Raises AnswerRefused."""
    row = assignment_of(connection, annotator_id, assignment_id)
    if row.state == "skipped":
        return
    if row.state not in ("open", "expired"):
        raise AnswerRefused(409, "this item was answered in another window")
    if row.state == "open":
        return_slot(connection, row.item)
    connection.execute(update(assignment).where(assignment.c.id == row.id).values(state="skipped", reason=reason))
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
        connection.execute(update(assignment).where(assignment.c.id == row.id).values(state="open", leased_until=now))
    log(connection, "reopen", now, annotator_id, row.id)
    return assignment_of(connection, annotator_id, assignment_id)


def assignment_of(connection: Connection, annotator_id: int, assignment_id: int) -> Row[Any]:
    """An assignment of this annotator. Raises AnswerRefused (404) for one of another."""
    mine = select(assignment).where(assignment.c.id == assignment_id, assignment.c.annotator == annotator_id)
    row = connection.execute(mine).first()
    if row is None:
        raise AnswerRefused(404, "no such item")
    return row


def log(
    connection: Connection, kind: str, now: float, annotator_id: int | None, assignment_id: int | None = None, detail: Any = None
) -> None:
    """Append to the audit log."""
    connection.execute(insert(event).values(time=now, annotator=annotator_id, assignment=assignment_id, kind=kind, detail=detail))


def view_of(of_item: Row[Any], order: Sequence[int]) -> ItemView:
    """The item in the display order of an assignment."""
    models = in_display_order(of_item.models, order)
    return ItemView(prompt_from_json(of_item.prompt), in_display_order(of_item.responses, order) or [], models, source=of_item.source)


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


def step_records(steps: Mapping[str, Any], questions: Mapping[str, Question], view: ItemView) -> list[Any]:
    """The feedback records of all steps."""
    records = []
    for step, name, position in step_names(questions, len(view.responses)):
        if step in steps:
            records += questions[name].feedback(steps[step], view, position)
    return records


def gold_verdict(of_item: Row[Any], row: Row[Any], steps: Mapping[str, Any], questions: Mapping[str, Question]) -> bool | None:
    """Compare the answers to a gold item with those expected; None for other items."""
    if of_item.gold is None:
        return None
    order = list(row.display_order)
    expected = {}
    for step, value in of_item.gold.items():
        name, _, index = step.partition("/")
        expected[f"{name}/{order.index(int(index))}" if index else name] = questions[name].in_display_order(value, order)
    return all(steps.get(step) == value for step, value in expected.items())
