"""Takes out records that say the same thing twice."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import TypeAdapter

from rlhf_lightning.feedback.cleaning import Cleaning, place
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

_FEEDBACK = TypeAdapter(Feedback)
_ORIGIN = {"origin"}


@register("feedback_filter", "duplicates", needs=["whole"])
def duplicates(feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]:
    """Keeps one of the records that are equal in everything but their origin: the first by file and line.

    The order in which they come doesn't matter. Two annotators who judge alike are two records; equal
    records without an annotator count as one judgement given twice. Records are known by a 128-bit hash of their content,
    which with their place takes 28 bytes of memory each.
    """
    removed = _repeated(feedback)
    for index, record in enumerate(feedback):
        if removed[index]:
            done.remove(record, "exact duplicate")
        else:
            yield record


def _repeated(feedback: Iterable[Feedback]) -> np.ndarray:
    """[N] whether a record is equal to an earlier one, by place."""
    hashes, files, lines = bytearray(), array("i"), array("q")
    names: dict[str, int] = {}
    for record in feedback:
        hashes += hashlib.blake2b(_FEEDBACK.dump_json(record, exclude=_ORIGIN, exclude_defaults=True), digest_size=16).digest()
        file, line = place(record)
        files.append(names.setdefault(file, len(names)))
        lines.append(line)
    by_name = {name: i for i, name in enumerate(sorted(names))}
    rank = np.array([by_name[name] for name in names], dtype=np.int32)
    keys = np.frombuffer(bytes(hashes), dtype=[("a", "<u8"), ("b", "<u8")])
    order = np.lexsort((np.asarray(lines), rank[np.asarray(files)], keys["b"], keys["a"]))
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated
