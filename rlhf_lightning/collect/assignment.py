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

from sqlalchemy import Connection, Row, and_, exists, func, insert, or_, select, update

from rlhf_lightning.collect.items import display_order
from rlhf_lightning.database.tables import assignment, draft, item

PRELOADED = 2
"""Open assignments of an annotator: the one on the screen and the next."""


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


def open_assignments(connection: Connection, annotator_id: int, now: float, rules: Rules) -> list[Row[Any]]:
    """The annotator's open assignments, oldest first, filled up to PRELOADED by new leases.

    Someone who would have none gets an item that is preloaded for another.
    """
    expire_leases(connection, now)
    renew_lease(connection, annotator_id, now, rules)
    rows = _open_rows(connection, annotator_id)
    while len(rows) < PRELOADED:
        until = now + (min(rules.preload_seconds, rules.lease_seconds) if rows else rules.lease_seconds)
        leased = _next_lease(connection, annotator_id, now, until, rules)
        if leased is None and not rows and _release_all_preloaded(connection):
            leased = _next_lease(connection, annotator_id, now, until, rules)
        if leased is None:
            break
        rows.append(connection.execute(select(assignment).where(assignment.c.id == leased)).one())
    return rows


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
    mine = select(assignment).where(assignment.c.annotator == annotator_id, assignment.c.state == "open")
    return list(connection.execute(mine.order_by(assignment.c.created, assignment.c.id)))


def renew_lease(connection: Connection, annotator_id: int, now: float, rules: Rules) -> None:
    """Extend the lease of the item on the screen of an annotator who is there."""
    for row in _open_rows(connection, annotator_id)[:1]:
        connection.execute(update(assignment).where(assignment.c.id == row.id).values(leased_until=now + rules.lease_seconds))


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
    expired = and_(assignment.c.state == "open", assignment.c.leased_until < now)
    _expire(connection, connection.execute(select(assignment.c.id, assignment.c.item).where(expired)).all())


def _expire(connection: Connection, rows: Iterable[Any]) -> None:
    for row in rows:
        connection.execute(update(assignment).where(assignment.c.id == row.id).values(state="expired"))
        return_slot(connection, row.item)


def take_slot(connection: Connection, item_id: int) -> bool:
    """Take a free slot of an item; return False if there is none. A gold item always has one."""
    free = and_(item.c.id == item_id, or_(item.c.free > 0, item.c.is_gold))
    return connection.execute(update(item).where(free).values(free=item.c.free - 1)).rowcount == 1


def return_slot(connection: Connection, item_id: int) -> None:
    """Return a slot of an item, for others."""
    connection.execute(update(item).where(item.c.id == item_id).values(free=item.c.free + 1))


def is_gold_turn(handed_out: int, annotator_id: int, rules: Rules) -> bool:
    """True if the annotator's next item is a gold one: one at random in 1 / gold_share items."""
    if not rules.gold_share:
        return False
    size = round(1 / rules.gold_share)
    return random.Random(f"gold/{rules.seed}/{annotator_id}/{handed_out // size}").randrange(size) == handed_out % size


def _next_lease(connection: Connection, annotator_id: int, now: float, until: float, rules: Rules) -> int | None:
    """Lease an expired assignment again or a new item; return the assignment's id."""
    return _lease_again(connection, annotator_id, now, until) or _lease(connection, annotator_id, now, until, rules)


def _lease_again(connection: Connection, annotator_id: int, now: float, until: float) -> int | None:
    """Lease an expired assignment again, with its draft, if its item has a free slot; return its id."""
    expired = (
        select(assignment.c.id, assignment.c.item)
        .join(item, item.c.id == assignment.c.item)
        .where(assignment.c.annotator == annotator_id, assignment.c.state == "expired", or_(item.c.free > 0, item.c.is_gold))
        .order_by(assignment.c.id)
        .limit(1)
    )
    row = connection.execute(expired).first()
    if row is None:
        return None
    take_slot(connection, row.item)
    leased = {"state": "open", "leased_until": until, "created": now}
    connection.execute(update(assignment).where(assignment.c.id == row.id).values(leased))
    return int(row.id)


def _lease(connection: Connection, annotator_id: int, now: float, until: float, rules: Rules) -> int | None:
    """Lease a new item; return the assignment's id.

    A gold one in its turn, else by fewest answers, priority, and at random.
    """
    row = None
    if rules.gold_share:
        handed_out = connection.scalar(select(func.count()).select_from(assignment).where(assignment.c.annotator == annotator_id))
        row = _candidate(connection, annotator_id, True) if is_gold_turn(handed_out or 0, annotator_id, rules) else None
    row = row or _candidate(connection, annotator_id, False)
    if row is None:
        return None
    take_slot(connection, row.id)
    order = display_order(len(row.responses), rules.seed, row.id, annotator_id)
    values = {"item": row.id, "annotator": annotator_id, "display_order": order, "state": "open", "created": now}
    leased = insert(assignment).values(**values, leased_until=until).returning(assignment.c.id)
    return int(connection.execute(leased).scalar_one())


def _candidate(connection: Connection, annotator_id: int, is_gold: bool) -> Row[Any, Any] | None:
    """The first item of the queue that the annotator never had."""
    had = exists().where(assignment.c.item == item.c.id, assignment.c.annotator == annotator_id)
    free = item.c.is_gold if is_gold else and_(item.c.is_gold.is_(False), item.c.free > 0)
    # A gold item's answers say nothing on its turn, so that people meet them in different orders.
    order = [item.c.shuffle] if is_gold else [item.c.answered, item.c.priority, item.c.shuffle]
    return connection.execute(select(item.c.id, item.c.responses).where(free, ~had).order_by(*order).limit(1)).first()
