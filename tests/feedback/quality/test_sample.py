"""Samples by prompt."""

from __future__ import annotations

import random
from collections import Counter

from rlhf_lightning.feedback.quality.sample import sample_by_prompt
from rlhf_lightning.flow import Feedback, Ranking, Thumbs


def thumbs(prompt: str, i: int, text: str = "x") -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Thumbs(up=True), annotator=f"a{i}", source="s")


def test_what_fits_is_all_of_it_and_counted() -> None:
    feedback = [thumbs("q", 0), Feedback(prompt="q", responses=tuple("abc"), judgement=Ranking(ranks=(0, 1, 2)), origin="f:1")]
    found = sample_by_prompt(feedback, 4)
    assert found.records == feedback
    assert found.judgements == {"s": Counter(thumbs=1), "f": Counter(ranking=1)}
    # The ranking costs three pairs.
    assert len(sample_by_prompt(feedback, 3).records) == 1


def test_prompts_stay_whole_but_for_one_and_are_the_same_in_any_order() -> None:
    feedback = [thumbs(f"q{i}", j) for i in range(200) for j in range(5)]
    found = sample_by_prompt(feedback, 303)
    assert len(found.records) == 303
    assert [feedback[i] for i in found.index] == found.records
    sizes = Counter(record.prompt for record in found.records)
    assert sorted(sizes.values()) == [3] + [5] * 60
    shuffled = random.Random(0).sample(feedback, len(feedback))
    assert {record.prompt for record in sample_by_prompt(shuffled, 303).records} == set(sizes)
    assert sum(sum(kinds.values()) for kinds in found.judgements.values()) == 1000


def test_without_a_prompt_the_response_stands_for_it() -> None:
    feedback = [thumbs("", j, f"text {i}") for i in range(100) for j in range(3)]
    sizes = Counter(record.responses for record in sample_by_prompt(feedback, 90).records)
    assert set(sizes.values()) == {3}
    assert len(sizes) == 30
