"""The project's own Feedback records."""

from __future__ import annotations

import json

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, nonblank_text
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "record")
class RecordFormat:
    """Feedback records, one JSON object per line as written by Feedback.model_dump_json, without loss.

    Every field is validated by the strict record, and texts must not be blank, except the prompt: the empty text means
    that the responses were judged by themselves. A record keeps its origin; one without the field gets its file and line.
    """

    def __init__(self) -> None:
        self.fields = frozenset(Feedback.model_fields)
        self.looks_for = "record looks for 'judgement'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get("judgement") is None:
            return None
        # pydantic's strict mode accepts a list for a tuple in JSON input only.
        record = Feedback.model_validate_json(row.raw if row.intact else json.dumps(row.data))
        if "origin" not in row.data:
            record = record.model_copy(update={"origin": row.origin})
        if isinstance(record.prompt, tuple):
            if not record.prompt:
                raise DataError('prompt is an empty list; responses that were judged by themselves have the prompt ""')
            for i, message in enumerate(record.prompt):
                nonblank_text(message.content, f"prompt[{i}].content")
        elif record.prompt:
            nonblank_text(record.prompt, "prompt")
        for i, response in enumerate(record.responses):
            nonblank_text(response, f"responses[{i}]")
        return [record]
