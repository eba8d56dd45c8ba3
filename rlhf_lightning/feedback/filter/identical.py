"""Finds responses that were judged against themselves."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.flow import Edit, Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_filter", "identical")
def identical(feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]:
    """Removes comparisons of a text with itself; texts count as the same after Unicode NFC and without blanks around them.

    A pair of the same text is removed. In a longer ranking, copies of a text in one place become one, and a copy that was left
    unranked makes way for one that was ranked; a text in two places is taken out altogether, its margin with it, and the record is
    removed if fewer than two texts remain. An edit that changed nothing is no comparison, but an approval: it is kept as an Edit of
    two exactly equal texts. Judgements of one response stay as they are.
    """
    for record in feedback:
        if len(record.responses) == 1:
            yield record
            continue
        same = [unicodedata.normalize("NFC", text).strip() for text in record.responses]
        if len(set(same)) == len(same):
            yield record
        elif isinstance(record.judgement, Edit):
            original = record.responses[0]
            done.change(record, "edit equal to its original, kept as approval")
            yield record.model_copy(update={"responses": (original, original)})
        elif isinstance(record.judgement, Ranking):
            yield from _collapsed(record, record.judgement, same, done)


def _collapsed(record: Feedback, ranking: Ranking, same: list[str], done: Cleaning) -> Iterator[Feedback]:
    places: dict[str, set[int]] = {}
    for text, rank in zip(same, ranking.ranks, strict=True):
        places.setdefault(text, set()).update(() if rank is None else (rank,))
    left: list[int] = []
    for text, found in places.items():
        if len(found) < 2:
            left.append(next(i for i, rank in enumerate(ranking.ranks) if same[i] == text and (not found or rank in found)))
    left.sort()
    if len(left) < 2:
        done.remove(record, "identical responses")
        return
    is_whole = all(len(found) < 2 for found in places.values())
    ranks = tuple(ranking.ranks[i] for i in left)
    chosen: dict[str, Any] = {
        name: values and tuple(values[i] for i in left)
        for name, values in (("responses", record.responses), ("models", record.models), ("positions", record.positions))
    }
    judgement = Ranking(ranks=ranks, margin=ranking.margin if is_whole else None, all_bad=ranking.all_bad)
    done.change(record, "identical responses within a ranking taken out")
    yield record.model_copy(update={**chosen, "judgement": judgement})
