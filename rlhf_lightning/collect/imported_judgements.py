"""Judgements that a file of items brings with it: of people by other tools, and of models.

They take no slot and nobody sees them. Those of people are feedback like the answers; those of models are read by surplus=true.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select

from rlhf_lightning.collect import people
from rlhf_lightning.collect.items import Item
from rlhf_lightning.database.tables import answer, assignment, item
from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.strict_json import replace_unstorable
from rlhf_lightning.flow import Feedback

UNKNOWN = {"annotator": "unknown annotator", "model": "unknown model"}


def add_judgements(connection: Connection, items: Iterable[Item], now: float) -> int:
    """Store the judgements of stored items, once for each person; return how many are new.

    Raises:
        DataError: an annotator whose name can't be used.
    """
    count = 0
    for new in items:
        if not new.judgements and not new.predictions:
            continue
        item_id = connection.scalar(select(item.c.id).where(item.c.digest == new.digest))
        for role, state, records in (("annotator", "imported", new.judgements), ("model", "predicted", new.predictions)):
            for name in dict.fromkeys(record.annotator for record in records):
                theirs = [record for record in records if record.annotator == name]
                count += len(theirs) * _add(connection, item_id, name or UNKNOWN[role], role, state, theirs, now)
    return count


def _add(connection: Connection, item_id: int | None, name: str, role: str, state: str, records: list[Feedback], now: float) -> bool:
    """Store what one person said of an item; return False if the person has judged it already."""
    try:
        cleaned = people.clean_name(name)
    except ValueError as cause:
        raise DataError(f"{records[0].origin}: the annotator {name!r}: {cause}") from cause
    person = people.add_person(connection, cleaned, role, now)
    if connection.scalar(select(assignment.c.id).where(assignment.c.item == item_id, assignment.c.annotator == person)) is not None:
        return False
    key = f"{state} {item_id} {person}"
    values = {"item": item_id, "annotator": person, "display_order": list(range(len(records[0].responses))), "created": now}
    stored = insert(assignment).values(**values, state=state, version=1, leased_until=now, answer=key).returning(assignment.c.id)
    times = [record.time.timestamp() for record in records if record.time is not None]
    rows = [replace_unstorable(record.model_copy(update={"annotator": cleaned}).model_dump(mode="json")) for record in records]
    seconds = max(record.seconds or 0.0 for record in records)
    connection.execute(
        insert(answer).values(
            key=key,
            assignment=connection.execute(stored).scalar_one(),
            version=0,
            steps={},
            records=rows,
            seconds=seconds,
            elapsed=seconds,
            time=max(times, default=now),
        )
    )
    return True
