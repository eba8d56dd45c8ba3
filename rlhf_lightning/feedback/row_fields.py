"""Fields that change the meaning of a data row: rejected if no format reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rlhf_lightning.errors import DataError

CONTEXT = {
    "tools": "the tools that the model may call",
    "functions": "the functions that the model may call",
    "tool_choice": "which tool the model must call",
    "documents": "documents that the model reads",
    "images": "images that the model sees",
    "image": "an image that the model sees",
    "videos": "videos that the model sees",
    "video": "a video that the model sees",
    "audios": "sound that the model hears",
    "audio": "sound that the model hears",
    "system": "a system message",
    "system_prompt": "a system message",
    "chat_template_kwargs": "arguments of the chat template",
}
"""Model inputs besides the prompt."""
STRENGTH = {
    "weight": "how much the row counts",
    "weights": "how much the row counts",
    "sample_weight": "how much the row counts",
    "margin": "how much better the chosen response is",
    "confidence": "how sure the annotator was",
}
"""Weights of a row."""
COMPANIONS = {"input": "instruction"}
"""The second half of a prompt, by the field of the first."""
REMEDIES = {
    "system": "write it into the prompt, as a chat that begins with the role system; where it names a model, set the format's `model`",
    "margin": "choose feedback_format=[pairwise], which reads margins",
    "confidence": "count it as a weight by feedback_source.NAME.rename={confidence: weight}",
    "sample_weight": "count it by feedback_source.NAME.rename={sample_weight: weight}",
    "weights": "count it by feedback_source.NAME.rename={weights: weight}",
}


def reject_unread(row: Mapping[str, Any], read: Collection[str], fields: Mapping[str, str], remedies: Mapping[str, str], last: str) -> None:
    """Reject a row with a field of `fields` that isn't read; null and empty values are ignored.

    Args:
        read: the fields that are read.
        fields: the meaning of each field.
        remedies: by field, before the last one.
        last: a remedy for any field, with "{name}" for its name.

    Raises:
        DataError: naming the field, its meaning and the remedies.
    """
    for name, meaning in fields.items():
        if name in row and name not in read and row[name] not in (None, "", [], {}):
            remedy = f"{remedies[name]}; " if name in remedies else ""
            raise DataError(f"field {name!r} holds {meaning}, which is not read here: {remedy}{last.format(name=name)}")
    for name, first in COMPANIONS.items():
        if name in row and name not in read and first in read and row[name] not in (None, "", [], {}):
            raise DataError(f"field {name!r} is the second half of the prompt in {first!r} and is not read: join them into one field")
