"""Edits keep every character; an unchanged text is an approval."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.edit import EditQuestion
from rlhf_lightning.collect.questions import ItemView

SHOWN = ItemView("p", ["a cat  ", "x" * 50], ["m", None])


@pytest.mark.parametrize("text", ["a dog \n ", "a cat  ", "é 😀 \x00 \u202e"])
def test_the_text_is_stored_as_it_was_written(text):
    question = EditQuestion()
    [record] = question.feedback(question.parse(text, SHOWN, 0), SHOWN, 0)
    assert record.responses == ("a cat  ", text)
    assert record.models == ("m", None)


@pytest.mark.parametrize("value", ["", "  \n", None, 3, "y" * 51])
def test_a_blank_or_overlong_text_is_refused(value):
    with pytest.raises(ValueError, match=r"blank|text"):
        EditQuestion(max_characters=10).parse(value, SHOWN, 1)
