"""Texts that are nearly the same, against every pair measured."""

from __future__ import annotations

import itertools
import random
import sys
from functools import partial

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.near_duplicates import near_duplicates
from rlhf_lightning.feedback.words import normalise_text, word_ngrams, words_of
from rlhf_lightning.flow import Feedback, Ranking, Rating

pytest.importorskip("datasketch")
WORDS = [f"word{i}" for i in range(400)]


def pair(prompt: str, first: str, second: str, **rest) -> Feedback:
    return Feedback(prompt=prompt, responses=(first, second), judgement=Ranking(ranks=(0, 1)), **rest)


def family(seed: int, count: int) -> list[Feedback]:
    """Records, each after the first a copy of an earlier one with a few words changed."""
    dice = random.Random(seed)
    texts = [[dice.choices(WORDS, k=60) for _ in range(3)]]
    for _ in range(count - 1):
        copy = [list(text) for text in dice.choice(texts)]
        for _ in range(dice.randint(0, 4)):
            dice.choice(copy)[dice.randrange(60)] = dice.choice(WORDS)
        texts.append(copy if dice.random() < 0.8 else [dice.choices(WORDS, k=60) for _ in range(3)])
    return [pair(*map(" ".join, text), origin=f"f:{i}") for i, text in enumerate(texts, start=1)]


def similarity(one: Feedback, other: Feedback) -> float:
    def runs(text: str) -> set[str]:
        return set(word_ngrams(words_of(text), 3)) or {normalise_text(text)}

    texts = zip([one.prompt_text, *one.responses], [other.prompt_text, *other.responses], strict=True)
    return min(len(runs(a) & runs(b)) / len(runs(a) | runs(b)) for a, b in texts)


@pytest.mark.parametrize("seed", range(4))
def test_one_of_each_group_stays_as_by_every_pair(seed: int, cleaned) -> None:
    """At a threshold that no pair is near to, where the hashing might miss one."""
    records = family(seed, 40)
    near = {(i, j) for i, j in itertools.combinations(range(len(records)), 2) if similarity(records[i], records[j]) >= 0.9}
    assert near
    group = list(range(len(records)))
    for i, j in near:
        group = [group[i] if g == group[j] else g for g in group]
    first = {g: min(i for i in range(len(records)) if group[i] == g) for g in group}
    expected = [record for i, record in enumerate(records) if first[group[i]] == i]
    dice = random.Random(seed)
    shuffled = dice.sample(records, len(records))
    for given in (records, shuffled):
        kept, cleaning = cleaned(near_duplicates, given)
        assert sorted(kept, key=str) == sorted(expected, key=str)
        assert cleaning.removed == {"near duplicate": len(records) - len(expected)}
    assert cleaned(near_duplicates, kept)[0] == kept


def test_case_marks_and_forms_make_no_difference_and_the_first_place_stays(cleaned) -> None:
    records = [pair("Who, then?", "It IS é.", "No!", origin="f:10"), pair("who then", "it is e\u0301", "no", origin="f:9")]
    assert cleaned(near_duplicates, records)[0] == records[1:]


def test_each_text_counts_however_long_the_others_are(cleaned) -> None:
    """A dialogue goes on: most of the prompt is the same, the response is another."""
    talk = " ".join(WORDS)
    records = [pair(talk, "yes it is", "no"), pair(talk, "not at all", "no"), pair(talk, ":)", "no"), pair(talk, ":(", "no")]
    assert cleaned(near_duplicates, records)[0] == records
    assert cleaned(partial(near_duplicates, threshold=0.01), records)[0] == records


def test_other_people_judgements_and_numbers_of_responses_stay(cleaned) -> None:
    base = pair("p", "a", "b")
    others = [
        base.model_copy(update={"annotator": "anna"}),
        base.model_copy(update={"judgement": Ranking(ranks=(1, 0))}),
        Feedback(prompt="p", responses=("a", "b", "c"), judgement=Ranking(ranks=(0, 1, 2))),
        Feedback(prompt="p", responses=("a",), judgement=Rating(value=1, scale=(0, 1))),
        Feedback(prompt="p", responses=("a",), judgement=Rating(value=1, scale=(0, 1), aspect="b")),
        Feedback(prompt="p", responses=("a",), judgement=Rating(value=0, scale=(0, 1))),
    ]
    assert cleaned(near_duplicates, [base, *others])[0] == [base, *others]
    kept, _ = cleaned(near_duplicates, [base, base.model_copy(update={"seconds": 3.0, "source": "s"})])
    assert len(kept) == 1


def test_a_missing_library_is_reported(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[cleaning\]'"):
        list(near_duplicates([], Cleaning()))
