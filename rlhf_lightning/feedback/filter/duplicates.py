"""Takes out records that say the same thing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from rlhf_lightning.feedback.filter.cleaning import Cleaning, place
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "duplicates", needs=["whole"])
def duplicates(feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]:
    """Keeps one of the records that are equal in everything but their origin: the first by file and line.

    The order in which they come doesn't matter. Two annotators who judge alike are two records; equal
    records without an annotator count as one judgement given twice. Records are known by a 128-bit hash of their content.
    """
    count: dict[int, int] = {}
    for record in feedback:
        content = _hash(record)
        count[content] = count.get(content, 0) + 1
    repeated = {content for content, times in count.items() if times > 1}
    del count
    first: dict[int, tuple[str, int]] = {}
    for record in feedback if repeated else ():
        content = _hash(record)
        if content in repeated:
            first[content] = min(first.get(content, place(record)), place(record))
    for record in feedback:
        content = _hash(record) if repeated else 0
        if content in repeated:
            if first.get(content) != place(record):
                done.remove(record, "exact duplicate")
                continue
            del first[content]  # a second one from the same place is a duplicate, too
        yield record


def _hash(record: Feedback) -> int:
    content = record.model_dump_json(exclude={"origin"}).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())
