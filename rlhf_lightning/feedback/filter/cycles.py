"""Cycles of preferences."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "cycles", needs=["all_records"])
def cycles(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    within: Literal["annotator", "all"] = "annotator",
    action: Literal["note", "drop"] = "note",
) -> Iterator[Feedback]:
    """Flag or drop records that are part of a cycle of preferences: A over B, B over C, C over A.

    The comparisons of rankings and edits of one prompt are edges between texts; a strongly connected component of more than one
    text is a cycle, also two texts that were judged both ways. A record is part of it if one of its comparisons lies inside.
    Prompt and text are identified by a 64-bit hash.

    Args:
        within: look for cycles among each annotator's comparisons (those without a name count as one annotator), or among all.
        action: "drop" removes the records that are part of a cycle, complete rankings included.
    """
    is_shared = within == "all"
    edges = array("Q")
    for record in feedback:
        for edge in _edges(record, is_shared):
            edges.extend(edge)
    cycle_of = _cycles(np.asarray(edges, dtype=np.uint64).reshape(-1, 2))
    count = len(set(cycle_of.values()))
    cleaning.notes.append(f"cycles: {count} found, {len(cycle_of)} texts in them")
    for record in feedback:
        record_edges = _edges(record, is_shared) if cycle_of else ()
        inside = any(better in cycle_of and cycle_of[better] == cycle_of.get(worse) for better, worse in record_edges)
        if inside and action == "drop":
            cleaning.remove(record, "part of a cycle of preferences")
            continue
        if inside:
            cleaning.flag(record, "part of a cycle of preferences")
        yield record


def _edges(record: Feedback, is_shared: bool) -> Iterator[tuple[int, int]]:
    pairs = comparisons(record)
    if pairs:
        context = repr((record.prompt_text, None if is_shared else record.annotator))
        nodes = [int.from_bytes(hashlib.blake2b(f"{context}{text}".encode(), digest_size=8).digest()) for text in record.responses]
        yield from ((nodes[better], nodes[worse]) for better, worse in pairs)


def _cycles(edges: np.ndarray) -> dict[int, int]:
    """Map each text in a cycle to the number of its cycle, from edges [E, 2] between texts."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(edges):
        return {}
    texts, ends = np.unique(edges, return_inverse=True)
    start, end = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (start, end)), shape=(len(texts), len(texts)))
    _, component = connected_components(graph, connection="strong")
    in_cycle = np.flatnonzero(np.bincount(component)[component] > 1)
    return dict(zip(texts[in_cycle].tolist(), component[in_cycle].tolist(), strict=True))
