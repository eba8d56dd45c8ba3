"""Comments, which may stay empty unless one is required."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.comment import CommentQuestion
from rlhf_lightning.collect.questions import ItemView

SHOWN = ItemView("p", ["one"])


def test_a_comment_is_a_record_and_an_empty_one_is_none():
    question = CommentQuestion()
    assert question.feedback(question.parse("too long\n", SHOWN, 0), SHOWN, 0)[0].judgement.text == "too long\n"
    assert question.feedback(question.parse("  ", SHOWN, 0), SHOWN, 0) == []
    assert not question.required


def test_a_required_comment_is_not_blank():
    with pytest.raises(ValueError, match="comment"):
        CommentQuestion(required=True).parse(" ", SHOWN, 0)
    with pytest.raises(ValueError, match="characters"):
        CommentQuestion(max_characters=3).parse("four", SHOWN, 0)
