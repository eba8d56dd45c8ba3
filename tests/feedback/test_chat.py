"""Prompts and responses as text and as messages; the expectations are TRL's documented row shapes."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of, responses_of
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Message

SKY = {"role": "user", "content": "What color is the sky?"}
BLUE, GREEN = ({"role": "assistant", "content": f"It is {color}."} for color in ("blue", "green"))
SYSTEM = {"role": "system", "content": "Be short."}


def row(**data: Any) -> Row:
    return Row(data, "f:1")


def said(*messages: dict[str, str]) -> tuple[Message, ...]:
    return tuple(Message.model_validate(message) for message in messages)


def both(**data: Any) -> tuple[Any, tuple[str, ...]]:
    return responses_of(row(**data), "prompt", ("chosen", "rejected"))


def test_a_prompt_is_text_or_messages_or_nothing() -> None:
    assert prompt_of(row(prompt=" x "), "prompt") == " x "
    assert prompt_of(row(prompt=[SYSTEM, SKY]), "prompt") == said(SYSTEM, SKY)
    assert prompt_of(row(prompt=[SKY, BLUE, {"role": "tool", "content": "42"}]), "prompt")[-1] == Message(role="tool", content="42")
    assert prompt_of(row(), None) == ""
    assert prompt_of(row(prompt=[SKY | {"name": None}]), "prompt") == said(SKY)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "prompt is an empty list"),
        ([SKY, BLUE], "prompt ends with the assistant"),
        ([SKY | {"role": "human"}], r"prompt\[0\].role must be one of system, user, assistant, tool, not text \('human'\)"),
        ([SKY | {"role": ["user"]}], r"prompt\[0\].role must be one of"),
        ([{"content": "x"}], r"'prompt\[0\].role' is missing"),
        ([{"from": "robot", "value": "x"}], r"'prompt\[0\].role' is missing"),
        ([{"role": "user"}], r"'prompt\[0\].content' is missing"),
        ([SYSTEM, SKY | {"content": None}], r"prompt\[1\].content must be text, not null"),
        ([SKY | {"content": [{"type": "text", "text": "x"}]}], r"prompt\[0\].content must be text, not a list"),
        ([SKY | {"content": " "}], r"prompt\[0\].content is blank"),
        ([SKY | {"name": "Ann", "id": 0}], r"prompt\[0\] holds name, id, which"),
        (["x"], r"prompt\[0\] must be a message"),
        ({"role": "user", "content": "x"}, "prompt must be text, not an object"),
        (None, "prompt is null"),
    ],
)
def test_prompts_refused(prompt: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        prompt_of(row(prompt=prompt), "prompt")


def test_a_response_is_text_or_one_message() -> None:
    prompt = said(SYSTEM, SKY)
    for given in ("It is blue.", [BLUE], [SYSTEM, SKY, BLUE]):
        assert response_of(row(r=given), "r", prompt) == "It is blue."
    assert response_of(row(r=[SKY, BLUE]), "r", SKY["content"]) == "It is blue."
    assert response_of(row(r=[BLUE]), "r", "") == "It is blue."


@pytest.mark.parametrize(
    ("response", "words"),
    [
        ([BLUE, SKY, GREEN], r"not 3 \(assistant, user, assistant\)"),
        ([SKY, BLUE], r"not 2 \(user, assistant\)"),
        ([SKY], r"not 1 \(user\)"),
        ([SYSTEM, SKY], r"not 0 \(none\)"),
        ([], r"not 0 \(none\)"),
        ([BLUE | {"content": ""}], r"r\[0\].content is empty"),
        ("", "r is empty text"),
    ],
)
def test_responses_refused(response: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        response_of(row(r=response), "r", said(SYSTEM, SKY))


def test_trl_preference_rows() -> None:
    answers = ("It is blue.", "It is green.")
    assert both(prompt="The sky is", chosen=" blue.", rejected=" green.") == ("The sky is", (" blue.", " green."))
    assert both(prompt=[SKY], chosen=[BLUE], rejected=[GREEN]) == (said(SKY), answers)
    assert both(chosen=[SKY, BLUE], rejected=[SKY, GREEN]) == (said(SKY), answers)
    long = [SYSTEM, SKY, GREEN, SKY]
    assert both(chosen=[*long, BLUE], rejected=[*long, GREEN]) == (said(*long), answers)


def test_equal_talks_part_before_their_last_message() -> None:
    assert both(chosen=[SKY, BLUE], rejected=[SKY, BLUE]) == (said(SKY), ("It is blue.", "It is blue."))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"chosen": [BLUE], "rejected": [GREEN]}, "chosen and rejected don't share all messages but the last"),
        ({"chosen": [SKY, BLUE], "rejected": [SYSTEM, SKY, GREEN]}, "don't share"),
        ({"chosen": [SKY, BLUE, SKY, BLUE], "rejected": [SKY, GREEN, SKY, BLUE]}, "don't share"),
        ({"chosen": [SKY, BLUE, BLUE], "rejected": [SKY, BLUE, GREEN]}, "ends with the assistant"),
        ({"chosen": [SKY, SKY], "rejected": [SKY, GREEN]}, r"chosen must hold one message of the assistant .*not 1 \(user\)"),
        ({"chosen": [SKY, BLUE], "rejected": "It is green."}, "rejected must be a list, not text"),
        ({"chosen": [SKY, BLUE]}, "'rejected' is missing"),
        ({"chosen": [], "rejected": [SKY, GREEN]}, "chosen is an empty list"),
        ({"prompt": None, "chosen": [SKY, BLUE], "rejected": [SKY, GREEN]}, "prompt is null"),
    ],
)
def test_pairs_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        both(**data)


HH = "\n\nHuman: hi\n\nAssistant: hello"


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        (f"{HH}\n\nHuman: and a cat?\n\nAssistant: yes", f"{HH}\n\nHuman: and a dog?\n\nAssistant: no", "inside a turn of the human"),
        (f"{HH}\n\nHuman: one\n\nAssistant: a", f"{HH} there\n\nHuman: one\n\nAssistant: b", "before their last turn"),
        (f"{HH}\n\nHuman: one\n\nAssistant: a", f"{HH} there", "before their last turn"),
        (f"{HH} there", f"{HH}\n\nHuman: one\n\nAssistant: a", "rejected continues with"),
    ],
)
def test_dialogues_that_differ_before_their_last_turn_are_rejected(chosen: str, rejected: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        responses_of(Row({"chosen": chosen, "rejected": rejected}, "f:1"), "prompt", ("chosen", "rejected"))


def test_dialogues_that_share_all_but_their_last_turn_are_read() -> None:
    asked = f"{HH}\n\nHuman: and a cat?\n\nAssistant:"
    row = Row({"chosen": f"{asked} a Human: yes\n\nAssistant: sure", "rejected": f"{asked} a Human: no"}, "f:1")
    assert responses_of(row, "prompt", ("chosen", "rejected")) == (asked, ("a Human: yes\n\nAssistant: sure", "a Human: no"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": "u"}],
            "parts of type image_url, text: models here read only text",
        ),
        (["hi"], "must be text, not a list of parts"),
    ],
)
def test_lists_of_parts_are_rejected_with_their_types(content: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        prompt_of(Row({"prompt": [{"role": "user", "content": content}]}, "f:1"), "prompt")
