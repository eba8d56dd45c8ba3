"""What holds for every filter: a second pass changes nothing, and order decides nothing."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.filter.cleaning import Filter
from rlhf_lightning.feedback.filter.contradictions import contradictions
from rlhf_lightning.feedback.filter.duplicates import duplicates
from rlhf_lightning.feedback.filter.encoding import encoding
from rlhf_lightning.feedback.filter.identical import identical
from rlhf_lightning.feedback.filter.length import length
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating

FILTERS: dict[str, Filter] = {
    "encoding": encoding,
    "identical": identical,
    "duplicates": duplicates,
    "length": partial(length, min_characters=2, max_characters=3, max_prompt=2),
    "contradictions": contradictions,
    "contradictions dropped": partial(contradictions, action="drop"),
}
# Few texts, so that records meet; composed and not, wrongly decoded, blank at the ends, with control characters.
TEXTS = [
    "p",
    "a",
    "é",
    "e\u0301",
    " a",
    "a\r\n",
    "schÃ¶n",
    "schön",
    "\x07",
    "â€œaâ€\x9d",
    "Ã\x83Â©",
    "long",
    "a\ufeff",
    "\x1b[0m",
    "ﬁ",
]


@st.composite
def records(draw: st.DrawFn) -> Feedback:
    text = st.sampled_from(TEXTS) | st.text(max_size=6).map(lambda t: t.encode("utf-8", "replace").decode("latin-1"))
    rest: dict[str, Any] = {
        "prompt": draw(st.sampled_from(TEXTS[:3])),
        "annotator": draw(st.sampled_from([None, "anna"])),
        "origin": draw(st.sampled_from([None, "f:9", "f:10", "g:1", "elsewhere"])),
    }
    kind = draw(st.sampled_from(["rating", "ranking", "edit"]))
    if kind == "rating":
        return Feedback(responses=(draw(text),), judgement=Rating(value=draw(st.integers(0, 1)), scale=(0, 1)), **rest)
    responses = tuple(draw(st.lists(text, min_size=2, max_size=2 if kind == "edit" else 4)))
    ranks = tuple(draw(st.integers(0, 2)) for _ in responses)
    return Feedback(responses=responses, judgement=Edit() if kind == "edit" else Ranking(ranks=ranks, margin=1.0), **rest)


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=80, deadline=None)
@given(feedback=st.lists(records(), max_size=10), seed=st.integers(0, 99))
def test_idempotent_and_blind_to_order(name: str, feedback: list[Feedback], seed: int) -> None:
    component = FILTERS[name]
    before = list(feedback)
    once = component(feedback)
    assert feedback == before
    assert component(once.kept).kept == once.kept
    assert len(once.kept) + sum(once.removed.values()) == len(feedback)
    other = list(feedback)
    random.Random(seed).shuffle(other)
    again = component(other)
    assert Counter(again.kept) == Counter(once.kept)
    assert (again.removed, again.changed, again.notes) == (once.removed, once.changed, once.notes)
