"""The project's own records, as it writes them."""

from __future__ import annotations

import json

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, filled
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "record")
class RecordFormat:
    """The project's own Feedback records, one JSON object per line as Feedback.model_dump_json writes them; nothing is lost.

    Every field is held to the record's own strict rules, and texts must not be blank, but for the prompt: the empty text there says
    that the responses were judged by themselves. A record keeps its own origin; one that has no such field gets the file and line it
    stands on.
    """

    def __init__(self) -> None:
        self.fields = frozenset(Feedback.model_fields)
        self.looks_for = "record looks for 'judgement'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get("judgement") is None:
            return None
        # Strictness differs between Python and JSON input: only the latter takes a list for a tuple.
        record = Feedback.model_validate_json(row.raw if row.intact else json.dumps(row.data))
        if "origin" not in row.data:
            record = record.model_copy(update={"origin": row.origin})
        if isinstance(record.prompt, tuple):
            if not record.prompt:
                raise DataError('prompt is an empty list; responses that were judged by themselves have the prompt ""')
            for i, message in enumerate(record.prompt):
                filled(message.content, f"prompt[{i}].content")
        elif record.prompt:
            filled(record.prompt, "prompt")
        for i, response in enumerate(record.responses):
            filled(response, f"responses[{i}]")
        return [record]
