"""Assignment of items to annotators: leases, overlap, gold items at random turns.

An item needs `needed` answers by distinct annotators. A lease takes one of its free slots; an answer keeps it, a skip or an expired lease
returns it. An annotator's oldest lease is the item on the screen; the preloaded one behind it has a short lease, and goes to whoever would
have nothing otherwise. All functions run inside one writing transaction.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, func, insert, literal_column, or_, select, update

from rlhf_lightning.collect.items import display_order
from rlhf_lightning.database.tables import annotator, answer, assignment, draft, item, project

PRELOADED = 2
"""Open assignments of an annotator: the one on the screen and the next."""

# Statements are built once: building one takes longer than running it.
_MINE = assignment.c.annotator == bindparam("person")
_OPEN = assignment.c.state == "open"
TURN = (
    select(
        assignment, item.c.prompt, item.c.responses, item.c.models, item.c.source, item.c.gold, annotator.c.name,
        draft.c.version.label("draft_version"), draft.c.steps.label("draft"), answer.c.steps,
    )
    .join(item, item.c.id == assignment.c.item)
    .join(annotator, annotator.c.id == assignment.c.annotator)
    .outerjoin(draft, draft.c.assignment == assignment.c.id)
    .outerjoin(answer, answer.c.key == assignment.c.answer)
)  # fmt: skip
"""Assignments with all that the page and an answer need: texts, the annotator's name, the draft, the current answer's steps."""
UPDATE = update(assignment).where(assignment.c.id == bindparam("row"))
"""Sets the columns that are among the parameters."""
_COUNT = update(item).where(item.c.id == bindparam("row"))
COUNT = _COUNT.values(free=item.c.free + bindparam("freed"), answered=item.c.answered + bindparam("added"))
"""Changes the counts of an item by `freed` and `added`."""
_TAKE = _COUNT.where(or_(item.c.free > 0, item.c.is_gold)).values(free=item.c.free - 1)
_LEASE = insert(assignment)
_OPEN_TURNS = TURN.where(_MINE, _OPEN).order_by(assignment.c.created, assignment.c.id)
_OPEN_ROWS = select(assignment.c.id, assignment.c.item).where(_MINE, _OPEN).order_by(assignment.c.created, assignment.c.id)
_RENEW = update(assignment).where(assignment.c.id == _OPEN_ROWS.with_only_columns(assignment.c.id).limit(1).scalar_subquery())
_EXPIRED = select(assignment.c.id, assignment.c.item).where(_OPEN, assignment.c.leased_until < bindparam("now"))
_LAPSED = (
    select(assignment.c.id, assignment.c.item)
    .join(item, item.c.id == assignment.c.item)
    .where(_MINE, assignment.c.state == "expired", or_(item.c.free > 0, item.c.is_gold))
    .order_by(assignment.c.id)
    .limit(1)
)
_STATUS = select(
    func.count().label("handed_out"),
    func.count().filter(assignment.c.state == "answered").label("answers"),
    func.count().filter(_OPEN).label("open"),
    func.count().filter(assignment.c.state == "expired").label("expired"),
    select(project.c.value).where(project.c.key == "is_paused").scalar_subquery().label("is_paused"),
    select(func.min(assignment.c.leased_until)).where(_OPEN).correlate(None).scalar_subquery().label("first_end"),
).where(_MINE)


@dataclass(frozen=True)
class Rules:
    """Settings of the assignment of items.

    Attributes:
        gold_share: of an annotator's items.
        lease_seconds: time without a sign of life after which an item is given to others.
        preload_seconds: time after which a preloaded item that isn't on the screen yet is given to others.
    """

    seed: int = 0
    gold_share: float = 0.1
    lease_seconds: float = 900.0
    preload_seconds: float = 120.0


def status_of(connection: Connection, annotator_id: int) -> Row[Any]:
    """Numbers of an annotator's assignments, and the state of the collection."""
    return connection.execute(_STATUS, {"person": annotator_id}).one()


def open_assignments(connection: Connection, annotator_id: int, now: float, rules: Rules, status: Row[Any] | None = None) -> list[Row[Any]]:
    """The annotator's open assignments (TURN), oldest first, filled up to PRELOADED by new leases.

    Someone who would have none gets an item that is preloaded for another.

    Args:
        status: of now, if it is known.
    """
    status = status or status_of(connection, annotator_id)
    if status.first_end is not None and status.first_end < now:
        expire_leases(connection, now)
        status = status_of(connection, annotator_id)
    if status.open:
        renew_lease(connection, annotator_id, now, rules)
    handed_out, lapsed = status.handed_out, status.expired > 0
    for number in range(status.open, PRELOADED):
        until = now + (min(rules.preload_seconds, rules.lease_seconds) if number else rules.lease_seconds)
        if lapsed and _lease_again(connection, annotator_id, now, until):
            continue
        leases = _lease(connection, annotator_id, handed_out, now, until, rules)
        if not leases and not number and _release_all_preloaded(connection):
            leases = _lease_again(connection, annotator_id, now, until) or _lease(connection, annotator_id, handed_out, now, until, rules)
        if not leases:
            break
        handed_out += 1
    return list(connection.execute(_OPEN_TURNS, {"person": annotator_id}))


def _release_all_preloaded(connection: Connection) -> bool:
    """Return the slots of all items that are on nobody's screen; False if there were none."""
    screen = assignment.alias()
    earlier = or_(screen.c.created < assignment.c.created, and_(screen.c.created == assignment.c.created, screen.c.id < assignment.c.id))
    behind = exists().where(screen.c.annotator == assignment.c.annotator, screen.c.state == "open", earlier)
    rows = connection.execute(select(assignment.c.id, assignment.c.item).where(assignment.c.state == "open", behind)).all()
    _expire(connection, rows)
    return bool(rows)


def _open_rows(connection: Connection, annotator_id: int) -> list[Row[Any]]:
    """The annotator's open assignments: the one on the screen, then the preloaded ones."""
    return list(connection.execute(_OPEN_ROWS, {"person": annotator_id}))


def renew_lease(connection: Connection, annotator_id: int, now: float, rules: Rules) -> None:
    """Extend the lease of the item on the screen of an annotator who is there."""
    connection.execute(_RENEW, {"person": annotator_id, "leased_until": now + rules.lease_seconds})


def leave(connection: Connection, annotator_id: int, now: float, rules: Rules) -> None:
    """Give back what the annotator hasn't seen; without a draft, the item seen gets a short lease."""
    release_preloaded(connection, annotator_id)
    has_draft = exists().where(draft.c.assignment == assignment.c.id)
    mine = and_(assignment.c.annotator == annotator_id, assignment.c.state == "open", ~has_draft)
    short = and_(mine, assignment.c.leased_until > now + rules.preload_seconds)
    connection.execute(update(assignment).where(short).values(leased_until=now + rules.preload_seconds))


def release_preloaded(connection: Connection, annotator_id: int) -> None:
    """Return the slots of the annotator's items that aren't on the screen yet."""
    _expire(connection, _open_rows(connection, annotator_id)[1:])


def release_all(connection: Connection, annotator_id: int) -> None:
    """Return the slots of all open items of the annotator."""
    _expire(connection, _open_rows(connection, annotator_id))


def expire_leases(connection: Connection, now: float) -> None:
    """Return the slots of leases that ran out; drafts stay."""
    _expire(connection, connection.execute(_EXPIRED, {"now": now}).all())


def _expire(connection: Connection, rows: Iterable[Any]) -> None:
    for row in rows:
        connection.execute(UPDATE, {"row": row.id, "state": "expired"})
        return_slot(connection, row.item)


def take_slot(connection: Connection, item_id: int) -> bool:
    """Take a free slot of an item; return False if there is none. A gold item always has one."""
    return connection.execute(_TAKE, {"row": item_id}).rowcount == 1


def return_slot(connection: Connection, item_id: int) -> None:
    """Return a slot of an item, for others."""
    connection.execute(COUNT, {"row": item_id, "freed": 1, "added": 0})


def is_gold_turn(handed_out: int, annotator_id: int, rules: Rules) -> bool:
    """True if the annotator's next item is a gold one: one at random in 1 / gold_share items."""
    if not rules.gold_share:
        return False
    size = round(1 / rules.gold_share)
    return random.Random(f"gold/{rules.seed}/{annotator_id}/{handed_out // size}").randrange(size) == handed_out % size


def _lease_again(connection: Connection, annotator_id: int, now: float, until: float) -> bool:
    """Lease an expired assignment again, with its draft, if its item has a free slot."""
    row = connection.execute(_LAPSED, {"person": annotator_id}).first()
    if row is None:
        return False
    take_slot(connection, row.item)
    connection.execute(UPDATE, {"row": row.id, "state": "open", "leased_until": until, "created": now})
    return True


def _lease(connection: Connection, annotator_id: int, handed_out: int, now: float, until: float, rules: Rules) -> bool:
    """Lease a new item, if there is one.

    A gold one in its turn, else by fewest answers, priority, and at random.
    """
    person = {"person": annotator_id}
    row = connection.execute(_TAKE_GOLD, person).first() if is_gold_turn(handed_out, annotator_id, rules) else None
    row = row or connection.execute(_TAKE_NEXT, person).first()
    if row is None:
        return False
    order = display_order(len(row.responses), rules.seed, row.id, annotator_id)
    values = {"item": row.id, "annotator": annotator_id, "display_order": order, "state": "open", "created": now, "leased_until": until}
    connection.execute(_LEASE, values)
    return True


def _take_first(is_gold: bool) -> Any:
    """Takes a slot of the first item of the queue that the annotator never had."""
    queue = item.alias("queue")
    had = exists().where(assignment.c.item == queue.c.id, _MINE)
    # A gold item's answers say nothing on its turn, so that people meet them in different orders.
    order = [queue.c.shuffle] if is_gold else [queue.c.answered, queue.c.priority, queue.c.shuffle]
    # "free > 0" is written as in the index item_queue, whose condition it must be to be used.
    free = [] if is_gold else [queue.c.free > literal_column("0")]
    first = select(queue.c.id).where(queue.c.is_gold.is_(is_gold), *free, ~had).order_by(*order).limit(1)
    return update(item).where(item.c.id == first.scalar_subquery()).values(free=item.c.free - 1).returning(item.c.id, item.c.responses)


_TAKE_GOLD, _TAKE_NEXT = _take_first(True), _take_first(False)
