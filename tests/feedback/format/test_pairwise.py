"""Pairs, plain and as HH-RLHF stores them."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Ranking

TALK = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return PairwiseFormat(**settings)(Row(data, "f:1"))


def test_a_pair_is_a_ranking_of_two() -> None:
    expected = Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=(0, 1)), origin="f:1")
    assert read({"prompt": "p", "chosen": "a", "rejected": "b"}) == [expected]


def test_names_margin_and_annotator() -> None:
    (record,) = (
        read(
            {"q": "p", "win": "a", "lose": "b", "gap": 2, "who": 7},
            prompt="q",
            chosen="win",
            rejected="lose",
            margin="gap",
            annotator="who",
        )
        or []
    )
    assert record.judgement == Ranking(ranks=(0, 1), margin=2.0)
    assert (record.prompt, record.annotator) == ("p", "7")


def test_shared_dialogue_is_the_prompt() -> None:
    (record,) = read({"chosen": f"{TALK} Because it is.", "rejected": f"{TALK} Because I say so. "}) or []
    assert (record.prompt, record.responses) == (TALK, ("Because it is.", "Because I say so."))


def test_dialogues_that_part_before_the_last_turn_are_rejected() -> None:
    """A response with a turn of the human in it would teach the policy to write both sides."""
    start = "\n\nHuman: Hi\n\nAssistant:"
    with pytest.raises(DataError, match="they differ before their last turn"):
        read({"chosen": f"{start} A\n\nHuman: x\n\nAssistant: y", "rejected": f"{start} B\n\nHuman: x\n\nAssistant: y"})


def test_not_mine() -> None:
    assert read({"prompt": "p", "response": "r"}) is None
    assert read({"chosen": None, "rejected": None}) is None


def test_conversations_as_trl_writes_them() -> None:
    """Explicit and implicit prompts give the same record."""
    user, good, bad = ({"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "So."), ("assistant", "No.")))
    expected = Feedback(
        prompt=(Message(role="user", content="Why?"),), responses=("So.", "No."), judgement=Ranking(ranks=(0, 1)), origin="f:1"
    )
    assert read({"prompt": [user], "chosen": [good], "rejected": [bad]}) == [expected]
    assert read({"chosen": [user, good], "rejected": [user, bad]}) == [expected]


def test_a_text_prompt_with_whole_conversations() -> None:
    """UltraFeedback's binarized rows: the prompt as text, and again as the first message of each side."""
    user = {"role": "user", "content": "Why?"}
    sides = {side: [user, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (record,) = read({"prompt": "Why?", **sides}) or []
    assert (record.prompt, record.responses) == ("Why?", ("chosen", "rejected"))


def test_judged_by_themselves() -> None:
    (record,) = read({"prompt": 3, "chosen": "a", "rejected": "b"}, prompt=None) or []
    assert record.prompt == ""


def test_models() -> None:
    (record,) = read({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": "x"}) or []
    assert record.models == ("x", None)
    (record,) = read({"prompt": "p", "chosen": "a", "rejected": "b", "systems": ["x", "y"]}, models="systems") or []
    assert record.models == ("x", "y")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "'prompt' is missing"),
        ({"prompt": None, "chosen": f"{TALK} a", "rejected": f"{TALK} b"}, "prompt is null"),
        ({"chosen": f"{TALK} a", "rejected": TALK}, "rejected has no text after"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin is -1"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": True}, "margin must be a finite number"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "annotator": []}, "annotator must be text"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": ["x"]}, "chosen_model must be text"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "rejected is null"),
    ],
)
def test_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data)
