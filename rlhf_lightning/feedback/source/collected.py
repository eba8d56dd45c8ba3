"""The judgements of a collection, from its database."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rlhf_lightning.errors import import_extra
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.registry import register

SCHEME = "postgresql:"


@register("feedback_source", "collected")
@source
def read_collected(path: str, *, gold: bool = False, surplus: bool = False) -> Iterator[Row | BadLine]:
    """The feedback that people gave on the page of stage=collect, for feedback_format=[record].

    Args:
        path: the collection's file, or its URL "postgresql://...".
        gold: read the answers to gold items too.
        surplus: read late answers too, beyond the number that an item needed, and predictions that came with the items.

    Raises:
        ConfigError: no collection there, or sqlalchemy isn't installed.
    """
    import_extra("sqlalchemy", "feedback_source=collected", "collect")
    from rlhf_lightning.database.connection import Database
    from rlhf_lightning.database.records import record_rows

    database = Database(path, must_exist=True)
    try:
        with database.read() as connection:
            for number, record in enumerate(record_rows(connection, gold=gold, surplus=surplus), start=1):
                yield Row(record, f"{database.name}:{number}", json.dumps(record).encode())
    finally:
        database.close()
