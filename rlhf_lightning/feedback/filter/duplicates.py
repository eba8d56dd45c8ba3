"""Takes out records that say the same thing twice."""

from __future__ import annotations

from rlhf_lightning.feedback.filter.cleaning import Cleaning
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "duplicates")
def duplicates(feedback: list[Feedback]) -> Cleaning:
    """Keeps one of the records that are equal in everything but their origin: the first by file and line.

    The order in which they come doesn't matter. Two annotators who judge alike are two records; equal
    records without an annotator count as one judgement given twice.
    """
    first: dict[Feedback, int] = {}
    for index, record in enumerate(feedback):
        content = record.model_copy(update={"origin": None})
        known = first.get(content)
        if known is None or _place(record) < _place(feedback[known]):
            first[content] = index
    chosen = set(first.values())
    done = Cleaning(kept=[])
    for index, record in enumerate(feedback):
        if index in chosen:
            done.keep(record)
        else:
            done.remove(record, "exact duplicate")
    return done


def _place(record: Feedback) -> tuple[str, int]:
    """File and line, lines by number: 9 comes before 10."""
    file, _, line = (record.origin or "").rpartition(":")
    return (file, int(line)) if line.isascii() and line.isdigit() else (record.origin or "", 0)
