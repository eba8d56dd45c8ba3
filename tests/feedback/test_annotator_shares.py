"""Several annotators: each judges its share of the prompts, the same ones after a crash."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.annotator_shares import AnnotatorShares, divide_shares
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.interfaces import ANNOTATION_KINDS


class Judge:
    def __init__(self, name, kinds=ANNOTATION_KINDS):
        self.name, self.kinds = name, kinds

    def judge(self, groups, *, number, kinds=ANNOTATION_KINDS):
        return [Feedback(prompt=p, responses=tuple(r), judgement=Ranking(ranks=(0, 1)), annotator=self.name) for p, r in groups]


GROUPS = [(f"p{i}", ["a", "b"]) for i in range(2000)]


def names_of(feedback):
    return {record.prompt: record.annotator for record in feedback}


def test_each_annotator_judges_its_share_and_every_prompt_is_judged_once():
    annotators = AnnotatorShares({"ada": Judge("ada"), "ben": Judge("ben")}, {"ada": 0.7, "ben": 0.3}, seed=3)
    feedback = annotators.judge(GROUPS, number=1)
    assert sorted(record.prompt for record in feedback) == sorted(prompt for prompt, _ in GROUPS)
    assert sum(record.annotator == "ben" for record in feedback) == pytest.approx(600, abs=90)
    names = names_of(feedback)
    assert names_of(annotators.judge(GROUPS[::-1], number=1)) == names
    assert names_of(annotators.judge(GROUPS, number=2)) != names


def test_a_kind_that_one_of_them_cannot_give_is_judged_by_the_others():
    annotators = AnnotatorShares({"ada": Judge("ada", ("rating",)), "ben": Judge("ben")}, {"ada": 0.9, "ben": 0.1}, seed=0)
    assert set(names_of(annotators.judge(GROUPS[:50], number=1, kinds=("ranking",))).values()) == {"ben"}
    assert annotators.kinds == ANNOTATION_KINDS


def test_shares_are_divided():
    assert divide_shares({"a": None}) == {"a": 1.0}
    assert divide_shares({"a": None, "b": 0.4, "c": None}) == pytest.approx({"a": 0.3, "b": 0.4, "c": 0.3})
    for shares in ({"a": 0.7, "b": 0.7}, {"a": 1.0, "b": None}, {"a": 0.3, "b": 0.3}):
        with pytest.raises(ConfigError, match=r"feedback_annotator\.a\.share"):
            divide_shares(shares)
