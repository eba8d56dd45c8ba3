"""Thumbs up and down."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.thumbs import ThumbsFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Thumbs


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return ThumbsFormat(**settings)(Row(data, "f:1"))


@pytest.mark.parametrize("up", [True, False])
def test_trl_unpaired_preference(up: bool) -> None:
    rest: dict[str, Any] = {"judgement": Thumbs(up=up), "origin": "f:1"}
    plain = {"prompt": "The sky is", "completion": " blue.", "label": up}
    assert read(plain, response="completion") == [Feedback(prompt="The sky is", responses=(" blue.",), **rest)]
    user, answer = {"role": "user", "content": "Color?"}, {"role": "assistant", "content": "Blue."}
    chat = {"prompt": [user], "completion": [answer], "label": up}
    assert read(chat, response="completion") == [Feedback(prompt=(Message(role="user", content="Color?"),), responses=("Blue.",), **rest)]


def test_other_values_and_texts_by_themselves() -> None:
    settings: dict[str, Any] = {"prompt": None, "response": "text", "label": "toxic", "up": (False, "no"), "down": (True, "yes")}
    for value, up in ((True, False), (False, True), ("yes", False), ("no", True)):
        assert read({"text": "x", "toxic": value}, **settings) == [
            Feedback(prompt="", responses=("x",), judgement=Thumbs(up=up), origin="f:1")
        ]


def test_paths_annotator_and_model() -> None:
    data = {"prompt": "p", "responses": {"text": "x", "passed": False, "system": "m", "who": 3}}
    names = {"response": "responses.text", "label": "responses.passed", "model": "responses.system", "annotator": "responses.who"}
    (record,) = read(data, **names) or []
    assert (record.responses, record.models, record.annotator) == (("x",), ("m",), "3")


def test_not_mine() -> None:
    assert read({"prompt": "p", "response": "r"}) is None
    assert read({"prompt": "p", "response": "r", "label": None}) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"label": 1}, r"label must be one of: true, false; not a number \(1\)"),
        ({"label": "true"}, "not text"),
        ({"label": [True]}, "not a list"),
        ({"label": True, "response": ""}, "response is empty"),
        ({"label": True, "prompt": ""}, "prompt is empty"),
    ],
)
def test_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read({"prompt": "p", "response": "r"} | data)


def test_a_chat_is_judged_as_a_unit_and_labels_may_judge_nothing() -> None:
    chat = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Thanks!"}]
    form = ThumbsFormat(messages="messages", label="vote", up=("👍",), down=("👎",), skip=("-",))
    (record,) = form(Row({"messages": chat, "vote": "👎"}, "f:1")) or []
    assert (record.prompt, record.responses) == ((Message(role="user", content="Hi?"),), ("Hello.",))
    assert record.judgement == Thumbs(up=False)
    assert form(Row({"messages": chat, "vote": "-"}, "f:2")) == []
    with pytest.raises(DataError, match="assistant"):
        form(Row({"messages": chat[:1], "vote": "👍"}, "f:3"))
