"""Annotators and the manager: links, sessions, roles.

A link's token and a session's cookie are 256 random bits; the database has only their SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update

from rlhf_lightning.collect.assignment import release_all
from rlhf_lightning.database.tables import annotator, credential

Kind = Literal["link", "join", "session"]
MAX_NAME = 80
MANAGER = "manager"


@dataclass(frozen=True)
class Person:
    """Someone with a valid session."""

    id: int
    name: str
    role: Literal["annotator", "manager"]


def clean_name(name: str) -> str:
    """Strip control characters and outer blanks from a name.

    Raises:
        ValueError: an empty, a long or a reserved name.
    """
    printable = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c)[0] != "C").strip()
    if not printable or len(printable) > MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters")
    if printable.casefold() == MANAGER:
        raise ValueError(f"the name {MANAGER} is reserved")
    return printable


def add_person(connection: Connection, name: str, role: str, now: float) -> int:
    """The id of the person with this name, who is added if new."""
    stored = connection.scalar(select(annotator.c.id).where(annotator.c.name == name))
    if stored is not None:
        return int(stored)
    added = connection.execute(insert(annotator).values(name=name, role=role, created=now).returning(annotator.c.id))
    return int(added.scalar_one())


def is_taken(connection: Connection, name: str) -> bool:
    """True if someone has this name."""
    return connection.scalar(select(annotator.c.id).where(annotator.c.name == name)) is not None


def new_credential(connection: Connection, person_id: int, kind: Kind, now: float) -> str:
    """Make a token of a link or a session; earlier ones stay valid."""
    token = secrets.token_urlsafe(32)
    connection.execute(insert(credential).values(digest=_digest(token), kind=kind, annotator=person_id, created=now))
    return token


def person_of(connection: Connection, token: str, kind: Kind) -> Person | None:
    """The active person with this token; None for an unknown or revoked one."""
    of_token = (
        select(annotator.c.id, annotator.c.name, annotator.c.role)
        .join(credential, credential.c.annotator == annotator.c.id)
        .where(credential.c.digest == _digest(token), credential.c.kind == kind, annotator.c.is_active)
    )
    row: Any = connection.execute(of_token).first()
    return None if row is None else Person(row.id, row.name, row.role)


def touch(connection: Connection, person_id: int, now: float) -> None:
    """Note that a person is there."""
    connection.execute(update(annotator).where(annotator.c.id == person_id).values(last_seen=now))


def revoke(connection: Connection, person_id: int) -> None:
    """Invalidate all links and sessions of an annotator and return the open items; answers stay."""
    connection.execute(update(annotator).where(annotator.c.id == person_id).values(is_active=False))
    connection.execute(delete(credential).where(credential.c.annotator == person_id))
    release_all(connection, person_id)


def readmit(connection: Connection, person_id: int) -> None:
    """Let a revoked annotator in again, by a new link."""
    connection.execute(update(annotator).where(annotator.c.id == person_id).values(is_active=True))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
