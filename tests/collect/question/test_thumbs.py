"""Thumbs for responses and for earlier turns of a dialogue."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.thumbs import ThumbsQuestion
from rlhf_lightning.collect.questions import ItemView
from rlhf_lightning.flow import Message

CHAT = (Message(role="user", content="hi"), Message(role="assistant", content="hello"), Message(role="user", content="how?"))
SHOWN = ItemView(CHAT, ["so", "like this"])


def test_a_turn_is_judged_after_the_messages_before_it():
    question = ThumbsQuestion(turns=True)
    earlier, response = question.feedback(question.parse({"up": False, "turns": {"1": True}}, SHOWN, 1), SHOWN, 1)
    assert (earlier.prompt, earlier.responses, earlier.judgement.up) == (CHAT[:1], ("hello",), True)
    assert (response.prompt, response.responses, response.judgement.up) == (CHAT, ("like this",), False)


@pytest.mark.parametrize(
    ("turns", "value"),
    [(False, True), (False, {"up": 1}), (False, {"up": True, "turns": {}}), (True, {"up": True, "turns": {"0": True}}),
     (True, {"up": True, "turns": {"1": 1}}), (True, {"turns": {"1": True}})],
)  # fmt: skip
def test_anything_else_is_refused(turns, value):
    with pytest.raises(ValueError, match=r"expected|turns"):
        ThumbsQuestion(turns=turns).parse(value, SHOWN, 0)
