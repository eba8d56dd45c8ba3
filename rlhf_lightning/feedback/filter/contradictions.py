"""Finds pairs of responses that were judged both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "contradictions", needs=["whole"])
def contradictions(feedback: Iterable[Feedback], done: Cleaning, *, action: Literal["keep", "drop"] = "keep") -> Iterator[Feedback]:
    """Tells how many of the compared pairs of texts were judged both ways, by one annotator or by two.

    The rate is the number of pairs (one prompt, two texts) with a comparison each way, over that of pairs with any comparison.
    Rankings and edits compare, ties and the other kinds don't. People disagree honestly, so both sides are kept unless told otherwise.

    Args:
        action: "drop" removes every record that has a part in a contradiction, a ranking as a whole.
    """
    seen: dict[int, int] = {}
    for record in feedback:
        for pair, way in _pairs(record):
            seen[pair] = seen.get(pair, 0) | way
    contradicted = sum(ways == 3 for ways in seen.values())
    rate = 100 * contradicted / max(len(seen), 1)
    done.notes.append(f"contradictions: {contradicted} of {len(seen)} compared pairs were judged both ways ({rate:.2f} %)")
    for record in feedback:
        if action == "drop" and any(seen[pair] == 3 for pair, _ in _pairs(record)):
            done.remove(record, "contradicted by other feedback")
        else:
            yield record


def _pairs(record: Feedback) -> Iterator[tuple[int, int]]:
    """(hash of prompt and two texts in alphabetical order, 1 where the first won or 2 where the second did)."""
    for better, worse in comparisons(record):
        texts = record.responses[better], record.responses[worse]
        content = repr((record.prompt_text, *sorted(texts))).encode()
        yield int.from_bytes(hashlib.blake2b(content, digest_size=16).digest()), 1 if texts[0] < texts[1] else 2
