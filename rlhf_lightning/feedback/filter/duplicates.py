"""Exact duplicates."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import TypeAdapter

from rlhf_lightning.feedback.cleaning import Cleaning, origin_key
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

_FEEDBACK = TypeAdapter(Feedback)
_ORIGIN = {"origin"}


@register("feedback_filter", "duplicates", needs=["all_records"])
def duplicates(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Keep one of the records that are equal except for their origin: the first by file and line.

    The result doesn't depend on the order of the records. Equal judgements of two annotators are two records; equal
    records without an annotator are duplicates. Records are identified by a 128-bit hash of their content; with their origin this
    takes 28 bytes of memory each.
    """
    removed = _duplicate_mask(feedback)
    for index, record in enumerate(feedback):
        if removed[index]:
            cleaning.remove(record, "exact duplicate")
        else:
            yield record


def _duplicate_mask(feedback: Iterable[Feedback]) -> np.ndarray:
    """Return a mask [N] of the records equal to one with an earlier origin."""
    hashes, files, lines = bytearray(), array("i"), array("q")
    names: dict[str, int] = {}
    for record in feedback:
        hashes += hashlib.blake2b(_FEEDBACK.dump_json(record, exclude=_ORIGIN, exclude_defaults=True), digest_size=16).digest()
        file, line = origin_key(record)
        files.append(names.setdefault(file, len(names)))
        lines.append(line)
    by_name = {name: i for i, name in enumerate(sorted(names))}
    rank = np.array([by_name[name] for name in names], dtype=np.int32)
    keys = np.frombuffer(bytes(hashes), dtype=[("a", "<u8"), ("b", "<u8")])
    order = np.lexsort((np.asarray(lines), rank[np.asarray(files)], keys["b"], keys["a"]))
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated
