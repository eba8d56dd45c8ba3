"""Message trees of Open-Assistant: every ranked set of replies, with the chat before it."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.oasst import OasstFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Ranking


def ask(text: str, *replies: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"text": text, "role": "prompter", "lang": "en", "deleted": False, "replies": list(replies)} | rest


def reply(text: str, rank: int | None = None, *replies: dict[str, Any], **rest: Any) -> dict[str, Any]:
    place = {} if rank is None else {"rank": rank}
    return {"text": text, "role": "assistant", "lang": "en", "deleted": False, "replies": list(replies)} | place | rest


def tree(root: dict[str, Any]) -> dict[str, Any]:
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}


def read(root: dict[str, Any], **settings: Any) -> list[Feedback]:
    return OasstFormat(**settings)(Row(tree(root), "f:1")) or []


def user(text: str) -> Message:
    return Message(role="user", content=text)


def test_rankings_at_every_depth() -> None:
    root = ask("q", reply("a", 1, ask("more?", reply("c", 0), reply("d", 1))), reply("b", 0))
    talk = (user("q"), Message(role="assistant", content="a"), user("more?"))
    assert read(root) == [
        Feedback(prompt=(user("q"),), responses=("a", "b"), judgement=Ranking(ranks=(1, 0)), origin="f:1"),
        Feedback(prompt=talk, responses=("c", "d"), judgement=Ranking(ranks=(0, 1)), origin="f:1"),
    ]


def test_a_tree_in_a_field_beside_others() -> None:
    row = Row({"prompt": "q", "tree": tree(ask("q", reply("a", 0), reply("b", 1)))}, "f:1")
    assert len(OasstFormat()(row) or []) == 1
    assert OasstFormat(tree="other")(row) is None
    assert OasstFormat()(Row({"prompt": "q"}, "f:1")) is None


def test_replies_without_a_rank_are_unranked() -> None:
    (record,) = read(ask("q", reply("a", 1), reply("b"), reply("c", 0), reply("d") | {"rank": None}))
    assert record.judgement == Ranking(ranks=(1, None, 0, None))
    assert read(ask("q", reply("a", 0), reply("b"))) == []
    assert read(ask("q")) == []


def test_deleted_messages_go_with_all_that_follows() -> None:
    lost = ask("more?", reply("c", 0), reply("d", 1))
    root = ask("q", reply("a", 0, lost, deleted=True), reply("b", 1), reply("e", 2))
    (record,) = read(root)
    assert (record.responses, record.judgement) == (("b", "e"), Ranking(ranks=(0, 1)))
    assert read(root | {"deleted": True}) == []


def test_languages() -> None:
    root = ask("q", reply("a", 0, ask("¿más?", reply("c", 0), reply("d", 1), lang="es")), reply("b", 1))
    assert [r.responses for r in read(root, languages=("es",))] == [("c", "d")]
    assert [r.responses for r in read(root, languages=("en", "de"))] == [("a", "b")]


def test_synthetic_replies_name_their_model() -> None:
    (record,) = read(ask("q", reply("a", 0, model_name="m"), reply("b", 1)))
    assert record.models == ("m", None)


def test_a_deep_tree() -> None:
    root = ask("end", reply("a", 0), reply("b", 1))
    for depth in range(300):
        root = ask(f"q{depth}", reply("r", None, root))
    (record,) = read(root)
    assert len(record.prompt) == 601


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (ask("q", reply("a", 0), reply(" ", 1)), r"tree\.prompt\.replies\[1\]\.text is blank"),
        (ask("q", reply("a", 0), reply("b") | {"rank": "1"}), r"replies\[1\]\.rank must be a whole number, not text"),
        (ask("q", reply("a", 0), reply("b") | {"rank": True}), "rank must be a whole number, not true"),
        (ask("q", reply("a", 0, role="bot"), reply("b", 1)), r"replies\[0\]\.role must be one of prompter, assistant"),
        (ask("q", deleted="no"), "deleted must be true or false"),
        (ask("q") | {"replies": {}}, "replies must be a list"),
        ({"role": "prompter"}, "text' is missing"),
    ],
)
def test_refused(root: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        OasstFormat()(Row({"tree": tree(root)}, "f:1"))
