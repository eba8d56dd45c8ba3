"""Actions of the manager's page: figures, pausing, annotators, export."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select

from rlhf_lightning.collect import people
from rlhf_lightning.collect.answers import AnswerRefused, log
from rlhf_lightning.collect.assignment import release_preloaded
from rlhf_lightning.collect.batches import OPEN, finish_batch
from rlhf_lightning.collect.export import export_text
from rlhf_lightning.collect.people import Person
from rlhf_lightning.collect.progress import agreement, annotator_table, flags, progress
from rlhf_lightning.collect.project import Project, get_setting, set_setting
from rlhf_lightning.collect.server.tasks import is_paused
from rlhf_lightning.database.tables import annotator

REFRESH_SECONDS = 10.0
MAX_SHARE = 0.01
"""Most of the time that the slow figures may take from the answers."""


class Figures:
    """The manager's figures.

    Those that read many answers are computed in the background, at most every REFRESH_SECONDS and MAX_SHARE of the time.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._slow: dict[str, Any] = {}
        self._busy = threading.Lock()
        self._pause = REFRESH_SECONDS
        self.refresh()  # before the first annotator comes: it imports what measures agreement

    def current(self) -> dict[str, Any]:
        """All figures, and the age in seconds of those of annotators and agreement."""
        now = self.project.clock()
        if now - self._slow["computed"] > self._pause:
            threading.Thread(target=self.refresh, daemon=True).start()
        with self.project.database.read() as connection:
            quick = {
                "progress": progress(connection, now),
                "flags": flags(connection),
                "is_paused": is_paused(connection),
                "has_round": bool(get_setting(connection, OPEN)),
            }
        slow = self._slow
        return {**quick, **slow, "age": max(now - slow["computed"], 0.0)}

    def refresh(self) -> None:
        """Compute the slow figures, unless that is going on already."""
        if not self._busy.acquire(blocking=False):
            return
        start = time.monotonic()
        try:
            with self.project.database.read() as connection:
                figures = {"annotators": annotator_table(connection), "agreement": agreement(connection)}
            self._slow = {**figures, "computed": self.project.clock()}
            self._pause = max(REFRESH_SECONDS, (time.monotonic() - start) / MAX_SHARE)
        finally:
            self._busy.release()


def set_paused(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Pause or continue; a paused collection hands out no items and still stores answers."""
    paused = bool(payload.get("is_paused"))
    for annotator_id in connection.scalars(select(annotator.c.id)).all() if paused else ():
        release_preloaded(connection, annotator_id)
    set_setting(connection, "is_paused", paused)
    log(connection, "pause" if paused else "continue", project.clock(), person.id)
    return {"is_paused": paused}


def finish_round(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Let stage=rounds go on with what is answered."""
    if not finish_batch(connection):
        raise AnswerRefused(409, "no round waits for answers")
    log(connection, "finish", project.clock(), person.id)
    return {"is_finished": True}


def add_annotator(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Add an annotator, or readmit a revoked one; return the token of a new link."""
    name = _name(payload)
    now = project.clock()
    added = people.add_person(connection, name, "annotator", now)
    people.readmit(connection, added)
    log(connection, "add", now, person.id, detail={"annotator": added})
    return {"name": name, "token": people.new_credential(connection, added, "link", now)}


def revoke_annotator(connection: Connection, project: Project, person: Person, payload: dict[str, Any]) -> dict[str, Any]:
    """Make an annotator's links and sessions invalid; the answers stay."""
    target = payload.get("annotator")
    stored = isinstance(target, int) and connection.scalar(
        select(annotator.c.id).where(annotator.c.id == target, annotator.c.role == "annotator")
    )
    if not stored:
        raise AnswerRefused(404, "no such annotator")
    people.revoke(connection, int(stored))
    log(connection, "revoke", project.clock(), person.id, detail={"annotator": target})
    return {"revoked": target}


def export_stream(project: Project, kind: str) -> Iterator[str]:
    """The text of an export (`collect.export.FILES`), from one snapshot."""
    with project.database.read() as connection:
        yield from export_text(connection, kind)


def _name(payload: dict[str, Any]) -> str:
    try:
        return people.clean_name(str(payload.get("name") or ""))
    except ValueError as cause:
        raise AnswerRefused(422, str(cause)) from cause
