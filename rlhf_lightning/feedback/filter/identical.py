"""Finds responses that were judged against themselves."""

from __future__ import annotations

import unicodedata

from rlhf_lightning.feedback.filter.cleaning import Cleaning
from rlhf_lightning.flow import Edit, Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_filter", "identical")
def identical(feedback: list[Feedback]) -> Cleaning:
    """Removes comparisons of a text with itself; texts count as the same after Unicode NFC and without blanks around them.

    A pair of the same text is removed. In a longer ranking, copies of a text in one place become one; a text in two places is taken
    out altogether, its margin with it, and the record is removed if fewer than two texts remain. An edit that changed nothing is no
    comparison, but an approval: it is kept as an Edit of two exactly equal texts. Ratings stay as they are.
    """
    done = Cleaning(kept=[])
    for record in feedback:
        same = [unicodedata.normalize("NFC", text).strip() for text in record.responses]
        if len(set(same)) == len(same):
            done.keep(record)
        elif isinstance(record.judgement, Edit):
            original = record.responses[0]
            done.keep(record.model_copy(update={"responses": (original, original)}), "edit equal to its original, kept as approval")
        elif isinstance(record.judgement, Ranking):
            _collapse(record, record.judgement, same, done)
    return done


def _collapse(record: Feedback, ranking: Ranking, same: list[str], done: Cleaning) -> None:
    places: dict[str, set[int]] = {}
    for text, rank in zip(same, ranking.ranks, strict=True):
        places.setdefault(text, set()).add(rank)
    left = [i for i, text in enumerate(same) if len(places[text]) == 1 and same.index(text) == i]
    if len(left) < 2:
        done.remove(record, "identical responses")
        return
    is_whole = all(len(found) == 1 for found in places.values())
    judgement = Ranking(ranks=tuple(ranking.ranks[i] for i in left), margin=ranking.margin if is_whole else None)
    responses = tuple(record.responses[i] for i in left)
    done.keep(record.model_copy(update={"responses": responses, "judgement": judgement}), "identical responses within a ranking taken out")
