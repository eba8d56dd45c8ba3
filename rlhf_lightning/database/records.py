"""Read the current answers of a collection: feedback records, raw answers, skips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select

from rlhf_lightning.database.tables import annotator, answer, assignment, item

BATCH = 1000


def record_rows(
    connection: Connection, *, gold: bool = False, surplus: bool = False, skips: bool = True, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The feedback records of current answers as JSON objects, oldest first.

    Args:
        gold: with the answers to gold items. skips: with what was skipped.
        surplus: with late answers beyond an item's number, and with models' predictions of the file of items.
        limit: of answers; the newest ones are read.
    """
    states = ["answered", "imported", *(["surplus", "predicted"] if surplus else []), *(["skipped"] if skips else [])]
    for row in _current(connection, states, gold, limit):
        yield from row.records


def answer_rows(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every current answer, skip and open assignment as a JSON object, with gold and late ones."""
    columns = (
        assignment.c.id, assignment.c.item, annotator.c.name, assignment.c.state, assignment.c.reason, assignment.c.display_order,
        assignment.c.gold_right, assignment.c.version, item.c.is_gold, answer.c.key, answer.c.steps, answer.c.seconds, answer.c.elapsed,
        answer.c.client_time, answer.c.time,
    )  # fmt: skip
    joined = assignment.join(annotator, annotator.c.id == assignment.c.annotator).join(item, item.c.id == assignment.c.item)
    joined = joined.outerjoin(answer, answer.c.key == assignment.c.answer)
    for row in connection.execution_options(yield_per=BATCH).execute(select(*columns).select_from(joined).order_by(assignment.c.id)):
        yield dict(row._mapping)


def _current(connection: Connection, states: Sequence[str], gold: bool, limit: int | None) -> Iterator[Any]:
    current = (
        select(answer.c.records)
        .join(assignment, assignment.c.answer == answer.c.key)
        .join(item, item.c.id == assignment.c.item)
        .where(assignment.c.state.in_(states))
    )
    if not gold:
        current = current.where(item.c.is_gold.is_(False))
    order = (answer.c.time, assignment.c.id)
    if limit is not None:
        newest = connection.execute(current.order_by(*(column.desc() for column in order)).limit(limit)).all()
        yield from reversed(newest)
        return
    yield from connection.execution_options(yield_per=BATCH).execute(current.order_by(*order))
