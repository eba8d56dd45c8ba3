"""Finds pairs of responses that were judged both ways."""

from __future__ import annotations

from typing import Literal

from rlhf_lightning.feedback.filter.cleaning import Cleaning
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "contradictions")
def contradictions(feedback: list[Feedback], *, action: Literal["keep", "drop"] = "keep") -> Cleaning:
    """Tells how many of the compared pairs of texts were judged both ways, by one annotator or by two.

    The rate is the number of pairs (one prompt, two texts) with a comparison each way, over that of pairs with any comparison.
    Rankings and edits compare, ties and ratings don't. People disagree honestly, so both sides are kept unless told otherwise.

    Args:
        action: "drop" removes every record that has a part in a contradiction, a ranking as a whole.
    """
    compared = [
        {(record.prompt, record.responses[better], record.responses[worse]) for better, worse in comparisons(record)} for record in feedback
    ]
    seen = set[tuple[str, str, str]]().union(*compared)
    both_ways = {pair for pair in seen if (pair[0], pair[2], pair[1]) in seen}
    pairs, contradicted = len(seen) - len(both_ways) // 2, len(both_ways) // 2
    rate = 100 * contradicted / max(pairs, 1)
    done = Cleaning(kept=[], notes=[f"contradictions: {contradicted} of {pairs} compared pairs were judged both ways ({rate:.2f} %)"])
    for record, own in zip(feedback, compared, strict=True):
        if action == "drop" and not own.isdisjoint(both_ways):
            done.remove(record, "contradicted by other feedback")
        else:
            done.keep(record)
    return done
