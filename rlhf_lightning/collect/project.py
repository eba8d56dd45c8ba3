"""One collection: its database, questions, rules and state, as the server uses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, exists, func, insert, or_, select, update

from rlhf_lightning.collect.assignment import Rules
from rlhf_lightning.collect.questions import Question
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import annotator, assignment, credential, item, project
from rlhf_lightning.errors import ConfigError


@dataclass
class Project:
    """A collection that is being served.

    Attributes:
        questions: by name, in the order in which they are asked.
        guidelines: for annotators, plain text.
        target: judged items at which the collection is complete; None for all.
        is_endless: items come from another program, as long as it runs.
        clock: seconds since 1970.
    """

    database: Database
    questions: Mapping[str, Question]
    rules: Rules = field(default_factory=Rules)
    guidelines: str = ""
    target: int | None = None
    is_endless: bool = False
    clock: Callable[[], float] = time.time

    def describe_questions(self) -> list[dict[str, Any]]:
        """Describe each question for the page."""
        return [
            {
                "name": name,
                "scope": question.scope,
                "responses": list(question.responses),
                "required": question.required,
                "title": question.title,
                "instruction": question.instruction,
                "settings": question.describe(),
            }
            for name, question in self.questions.items()
        ]


def get_setting(connection: Connection, key: str, default: Any = None) -> Any:
    """A stored setting of the collection."""
    value = connection.scalar(select(project.c.value).where(project.c.key == key))
    return default if value is None else value


def set_setting(connection: Connection, key: str, value: Any) -> None:
    """Store a setting of the collection."""
    changed = connection.execute(update(project).where(project.c.key == key).values(value=value))
    if not changed.rowcount:
        connection.execute(insert(project).values(key=key, value=value))


def check_same(connection: Connection, key: str, value: Any, name: str, location: str) -> None:
    """Store a setting that can't change while answers to the old one exist.

    Raises:
        ConfigError: it differs from the stored one.
    """
    stored = get_setting(connection, key)
    if stored is None:
        set_setting(connection, key, value)
    elif stored != value:
        raise ConfigError(
            f"{location} was collected with other settings of {name}: {stored}, not {value}; continue with those, or start another "
            "collection with collect.database=FILE"
        )


def counts(connection: Connection) -> dict[str, int]:
    """Ordinary items, their slots, and how many of each are answered."""
    ordinary = item.c.is_gold.is_(False)
    row = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(item.c.needed), 0),
            func.coalesce(func.sum(item.c.answered), 0),
            func.count().filter(item.c.answered >= item.c.needed),
        ).where(ordinary)
    ).one()
    return dict(zip(("items", "slots", "answers", "complete"), map(int, row), strict=True))


def is_complete(state: Mapping[str, int], target: int | None) -> bool:
    """True if enough is judged by these `counts`: all slots, or `target` answers."""
    return state["answers"] >= min(state["slots"], target if target is not None else state["slots"])


def is_exhausted(connection: Connection) -> bool:
    """True if nobody who may judge has anything to judge, and nobody else can join.

    An item that needs as many people as there are can't be completed once one of them skips it.
    """
    active = (annotator.c.role == "annotator") & annotator.c.is_active
    had = exists().where(assignment.c.item == item.c.id, assignment.c.annotator == annotator.c.id, assignment.c.state != "expired")
    judgeable = select(item.c.id).select_from(item.join(annotator, active)).where(item.c.free > 0, item.c.is_gold.is_(False), ~had)
    can_go_on = or_(exists().where(assignment.c.state == "open"), exists().where(credential.c.kind == "join"), ~exists().where(active))
    return not connection.scalar(select(can_go_on)) and connection.scalar(judgeable.limit(1)) is None
