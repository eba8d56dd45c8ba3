"""Finds preferences that go round in a circle."""

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


@register("feedback_filter", "cycles", needs=["whole"])
def cycles(
    feedback: Iterable[Feedback],
    done: Cleaning,
    *,
    within: Literal["annotator", "all"] = "annotator",
    action: Literal["note", "drop"] = "note",
) -> Iterator[Feedback]:
    """Points at records with a part in a cycle of preferences, as A over B, B over C, C over A; or drops them.

    The comparisons of rankings and edits of one prompt are arrows between texts; texts that reach each other by arrows (strongly
    connected components) form a cycle, two that were judged both ways included. A record has a part in it where one of its
    comparisons stands inside a cycle. Prompt and text are known by a 64-bit hash.

    Args:
        within: look for cycles in each annotator's own comparisons (those without a name count as one annotator), or in all together.
        action: "drop" removes the records with a part in a cycle, a ranking as a whole.
    """
    is_shared = within == "all"
    arrows = array("Q")
    for record in feedback:
        for arrow in _arrows(record, is_shared):
            arrows.extend(arrow)
    cycle_of = _cycles(np.asarray(arrows, dtype=np.uint64).reshape(-1, 2))
    number = len(set(cycle_of.values()))
    done.notes.append(f"cycles: {number} found, {len(cycle_of)} texts in them")
    for record in feedback:
        arrows_here = _arrows(record, is_shared) if cycle_of else ()
        inside = any(better in cycle_of and cycle_of[better] == cycle_of.get(worse) for better, worse in arrows_here)
        if inside and action == "drop":
            done.remove(record, "part of a cycle of preferences")
            continue
        if inside:
            done.find(record, "part of a cycle of preferences")
        yield record


def _arrows(record: Feedback, is_shared: bool) -> Iterator[tuple[int, int]]:
    found = comparisons(record)
    if found:
        about = repr((record.prompt_text, None if is_shared else record.annotator))
        known = [int.from_bytes(hashlib.blake2b(f"{about}{text}".encode(), digest_size=8).digest()) for text in record.responses]
        yield from ((known[better], known[worse]) for better, worse in found)


def _cycles(arrows: np.ndarray) -> dict[int, int]:
    """The number of its cycle for each text that is in one, from arrows [E, 2] between texts."""
    names, ends = np.unique(arrows, return_inverse=True)
    ends = ends.reshape(-1, 2)
    # What nothing leads to, or what leads nowhere, is in no cycle: nearly all goes here, without a Python object each.
    while len(ends):
        leads = np.bincount(ends[:, 0], minlength=len(names)) > 0
        is_led_to = np.bincount(ends[:, 1], minlength=len(names)) > 0
        left = leads[ends[:, 1]] & is_led_to[ends[:, 0]]
        if left.all():
            break
        ends = ends[left]
    follows: dict[int, list[int]] = {}
    for start, end in np.unique(ends, axis=0).tolist():
        follows.setdefault(start, []).append(end)
        follows.setdefault(end, [])
    return {int(names[node]): number for number, nodes in enumerate(_components(follows)) if len(nodes) > 1 for node in nodes}


def _components(follows: dict[int, list[int]]) -> Iterator[list[int]]:
    """Strongly connected components (Kosaraju: backwards over the order in which a depth-first search leaves the nodes)."""
    leads_here: dict[int, list[int]] = {node: [] for node in follows}
    for start, ends in follows.items():
        for end in ends:
            leads_here[end].append(start)
    order: list[int] = []
    seen: set[int] = set()
    for node in follows:
        order += _left_in_order(node, follows, seen)
    seen = set()
    for node in reversed(order):
        if component := _left_in_order(node, leads_here, seen):
            yield component


def _left_in_order(root: int, follows: dict[int, list[int]], seen: set[int]) -> list[int]:
    """What a depth-first search from the root reaches and hasn't seen, in the order in which it leaves the nodes."""
    if root in seen:
        return []
    seen.add(root)
    order, path = list[int](), [(root, iter(follows[root]))]
    while path:
        node, ahead = path[-1]
        step = next((other for other in ahead if other not in seen), None)
        if step is None:
            order.append(node)
            path.pop()
        else:
            seen.add(step)
            path.append((step, iter(follows[step])))
    return order
