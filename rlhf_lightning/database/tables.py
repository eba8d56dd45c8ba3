"""Tables of a collection's database, the same for SQLite and PostgreSQL.

Times are seconds since 1970 by the server's clock. JSON is stored as ASCII text, which keeps every character of people's texts, NUL and
lone surrogates included, in both databases.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)  # fmt: skip

SCHEMA_VERSION = 1
metadata = MetaData()


class Json(TypeDecorator[Any]):
    """A JSON value as ASCII text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# Settings of the collection and the version of these tables.
project = Table("project", metadata, Column("key", Text, primary_key=True), Column("value", Json, nullable=False))

# What is judged: responses to a prompt. `free` counts the slots that are neither answered nor leased.
item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("prompt", Json, nullable=False),
    Column("responses", Json, nullable=False),
    Column("models", Json),
    Column("source", Json),
    Column("gold", Json),
    Column("is_gold", Boolean, nullable=False),
    Column("needed", Integer, nullable=False),
    Column("free", Integer, nullable=False),
    Column("answered", Integer, nullable=False, default=0),
    Column("priority", Float, nullable=False, default=0.0),
    Column("shuffle", Float, nullable=False),
    Index("item_queue", "is_gold", "answered", "priority", "shuffle", sqlite_where=text("free > 0"), postgresql_where=text("free > 0")),
    Index("item_counts", "is_gold", "needed", "answered"),
)

# People. A manager has no assignments.
annotator = Table(
    "annotator",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, default=True),
    Column("created", Float, nullable=False),
    Column("last_seen", Float),
)

# SHA-256 of link tokens and of session cookies; the secrets themselves are stored nowhere.
credential = Table(
    "credential",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("annotator", ForeignKey("annotator.id"), nullable=False, index=True),
    Column("created", Float, nullable=False),
)

# One annotator's turn at one item. `display_order[d]` is the response at display position d.
assignment = Table(
    "assignment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("item", ForeignKey("item.id"), nullable=False),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("display_order", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False, default=0),
    Column("leased_until", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("answer", Text),
    Column("reason", Json),
    Column("gold_right", Boolean),
    UniqueConstraint("item", "annotator"),
    Index("assignment_lease", "state", "leased_until"),
    Index("assignment_person", "annotator", "state"),
)

# Every version of every answer; never updated or deleted. The key is made by the page, so that a resent answer is stored once.
answer = Table(
    "answer",
    metadata,
    Column("key", Text, primary_key=True),
    Column("assignment", ForeignKey("assignment.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("steps", Json, nullable=False),
    Column("records", Json, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("elapsed", Float, nullable=False),
    Column("client_time", Float),
    Column("time", Float, nullable=False, index=True),
    UniqueConstraint("assignment", "version"),
)

# The unfinished answer of an assignment.
draft = Table(
    "draft",
    metadata,
    Column("assignment", ForeignKey("assignment.id"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("steps", Json, nullable=False),
    Column("time", Float, nullable=False),
)

# The audit log: leases, skips, flags, reopened answers, and the manager's actions.
event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("annotator", Integer),
    Column("assignment", Integer),
    Column("kind", Text, nullable=False),
    Column("detail", Json),
)
