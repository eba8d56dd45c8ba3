"""Comparisons of a text with itself."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.flow import Edit, Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_filter", "identical")
def identical(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Remove comparisons of a text with itself; texts are equal up to Unicode NFC and outer blanks.

    A pair of equal texts is removed. In a longer ranking, copies of a text with one rank are merged, ranked ones preferred to
    unranked; a text with two ranks is removed together with the margin, and the record too if fewer than two texts remain. An edit
    without a change is an approval: it is kept as an Edit of two exactly equal texts. Judgements of one response are unchanged.
    """
    for record in feedback:
        if len(record.responses) == 1:
            yield record
            continue
        normalised = [unicodedata.normalize("NFC", text).strip() for text in record.responses]
        if len(set(normalised)) == len(normalised):
            yield record
        elif isinstance(record.judgement, Edit):
            original = record.responses[0]
            cleaning.change(record, "edit equal to its original, kept as approval")
            yield record.model_copy(update={"responses": (original, original)})
        elif isinstance(record.judgement, Ranking):
            yield from _collapse(record, record.judgement, normalised, cleaning)


def _collapse(record: Feedback, ranking: Ranking, normalised: list[str], cleaning: Cleaning) -> Iterator[Feedback]:
    ranks_of_text: dict[str, set[int]] = {}
    for text, rank in zip(normalised, ranking.ranks, strict=True):
        ranks_of_text.setdefault(text, set()).update(() if rank is None else (rank,))
    remaining: list[int] = []
    for text, ranks_found in ranks_of_text.items():
        if len(ranks_found) < 2:
            remaining.append(
                next(i for i, rank in enumerate(ranking.ranks) if normalised[i] == text and (not ranks_found or rank in ranks_found))
            )
    remaining.sort()
    if len(remaining) < 2:
        cleaning.remove(record, "identical responses")
        return
    is_complete = all(len(ranks_found) < 2 for ranks_found in ranks_of_text.values())
    ranks = tuple(ranking.ranks[i] for i in remaining)
    fields: dict[str, Any] = {
        name: values and tuple(values[i] for i in remaining)
        for name, values in (("responses", record.responses), ("models", record.models), ("positions", record.positions))
    }
    judgement = Ranking(ranks=ranks, margin=ranking.margin if is_complete else None, all_bad=ranking.all_bad)
    cleaning.change(record, "identical responses within a ranking taken out")
    yield record.model_copy(update={**fields, "judgement": judgement})
