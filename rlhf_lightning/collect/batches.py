"""Batches of items that a program publishes and waits for: the rounds of feedback_annotator=people.

A batch is a setting `batch/KEY` of the collection. Closing it fixes its answers: later ones change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from rlhf_lightning.collect.items import Item, add_items
from rlhf_lightning.collect.project import get_setting, set_setting
from rlhf_lightning.collect.settings import CollectSettings
from rlhf_lightning.database.tables import answer, assignment, item
from rlhf_lightning.flow import Feedback

OPEN = "open_batch"
"""The setting with the key of the batch that is waited for."""


@dataclass(frozen=True)
class BatchState:
    """The progress of a batch.

    Attributes:
        answers: judgements so far, of `slots`. opened: time of publication, seconds since 1970.
        is_finished: the manager has ended it. is_closed: its answers are fixed.
    """

    answers: int
    slots: int
    opened: float
    is_finished: bool
    is_closed: bool


def publish(connection: Connection, key: str, items: Sequence[Item], settings: CollectSettings, seed: int, now: float) -> None:
    """Store the new items of a batch and open it, unless it was published before."""
    if get_setting(connection, f"batch/{key}") is None:
        add_items(connection, items, overlap=settings.overlap, overlap_share=settings.overlap_share, seed=seed)
        ids = {row.digest: row.id for row in connection.execute(select(item.c.id, item.c.digest))}
        content = {"items": list(dict.fromkeys(ids[new.digest] for new in items)), "opened": now, "is_finished": False, "answers": None}
        set_setting(connection, f"batch/{key}", content)
    if get_setting(connection, f"batch/{key}")["answers"] is None:
        set_setting(connection, OPEN, key)


def batch_state(connection: Connection, key: str) -> BatchState:
    """The progress of a published batch."""
    batch = get_setting(connection, f"batch/{key}")
    members = set(batch["items"])
    rows = [row for row in connection.execute(select(item.c.id, item.c.needed, item.c.answered)) if row.id in members]
    answers = sum(min(row.answered, row.needed) for row in rows)
    return BatchState(answers, sum(row.needed for row in rows), batch["opened"], batch["is_finished"], batch["answers"] is not None)


def finish_batch(connection: Connection) -> bool:
    """End the open batch with what is answered; False if there is none."""
    key = get_setting(connection, OPEN)
    if not key:
        return False
    set_setting(connection, f"batch/{key}", {**get_setting(connection, f"batch/{key}"), "is_finished": True})
    return True


def close_batch(connection: Connection, key: str) -> None:
    """Fix the answers of a batch and withdraw what nobody has answered."""
    batch = get_setting(connection, f"batch/{key}")
    if batch["answers"] is not None:
        return
    position = {number: i for i, number in enumerate(batch["items"])}
    answered = select(assignment.c.item, assignment.c.answer, assignment.c.id).where(assignment.c.state.in_(("answered", "skipped")))
    rows = [row for row in connection.execute(answered) if row.item in position and row.answer is not None]
    keys = [row.answer for row in sorted(rows, key=lambda row: (position[row.item], row.id))]
    for number in batch["items"]:
        is_member = item.c.id == number
        connection.execute(update(item).where(is_member, item.c.answered < item.c.needed).values(needed=item.c.answered, free=0))
        is_open = (assignment.c.item == number) & (assignment.c.state == "open")
        connection.execute(update(assignment).where(is_open).values(state="expired"))
    set_setting(connection, f"batch/{key}", {**batch, "answers": keys})
    set_setting(connection, OPEN, "")


def batch_feedback(connection: Connection, key: str) -> list[Feedback]:
    """The records of a closed batch, in the order of its items."""
    keys = get_setting(connection, f"batch/{key}")["answers"]
    records: dict[str, Any] = {row.key: row.records for row in _answers(connection, keys)}
    return [Feedback.model_validate_json(json.dumps(record)) for name in keys for record in records[name]]


def _answers(connection: Connection, keys: Iterable[str]) -> Iterable[Any]:
    wanted = set(keys)
    return (row for row in connection.execute(select(answer.c.key, answer.c.records)) if row.key in wanted)
