"""Pairs of responses that were judged both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "contradictions", needs=["all_records"])
def contradictions(feedback: Iterable[Feedback], cleaning: Cleaning, *, action: Literal["keep", "drop"] = "keep") -> Iterator[Feedback]:
    """Count the compared pairs of texts that were judged both ways, by one annotator or by two.

    The rate is the number of pairs (one prompt, two texts) with comparisons both ways, over that of pairs with any comparison.
    Rankings and edits compare, ties and the other kinds don't. People disagree honestly, so both sides are kept by default.

    Args:
        action: "drop" removes every record with a contradicted pair, complete rankings included.
    """
    orders: dict[int, int] = {}
    for record in feedback:
        for pair, order in _pairs(record):
            orders[pair] = orders.get(pair, 0) | order
    contradicted = sum(order == 3 for order in orders.values())
    rate = 100 * contradicted / max(len(orders), 1)
    cleaning.notes.append(f"contradictions: {contradicted} of {len(orders)} compared pairs were judged both ways ({rate:.2f} %)")
    for record in feedback:
        if action == "drop" and any(orders[pair] == 3 for pair, _ in _pairs(record)):
            cleaning.remove(record, "contradicted by other feedback")
        else:
            yield record


def _pairs(record: Feedback) -> Iterator[tuple[int, int]]:
    """Yield (hash of the prompt and the two texts, sorted; 1 if the first won, 2 if the second did)."""
    for better, worse in comparisons(record):
        texts = record.responses[better], record.responses[worse]
        content = repr((record.prompt_text, *sorted(texts))).encode()
        yield int.from_bytes(hashlib.blake2b(content, digest_size=16).digest()), 1 if texts[0] < texts[1] else 2
