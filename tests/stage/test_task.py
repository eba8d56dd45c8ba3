"""Conversations of a task against the chat template, before any model loads."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.stage._task import check_chats
from tests.fixtures.chat_templates import SHAPES, chat, chat_tokenizer
from tests.sft.test_rows import FORGETFUL
from tests.tokenization.test_chat_template import CHATML

ALTERNATING = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ message['role'] + message['content'] }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("messages", "number", "role", "remedy"),
    [
        ((Message(role="system", content="Be kind."), *chat("A?")), 1, "system", "leave out task.system"),
        ((*chat("A?"), *chat("B?")), 2, "user", "let user and assistant take turns"),
        ((*chat("A?", "b"), Message(role="tool", content="c")), 3, "tool", "leave out conversations with tools"),
    ],
)
def test_a_rejected_role_is_named_with_its_line_and_remedy(messages, number, role, remedy):
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    tokenizer.chat_template = ALTERNATING
    assert check_chats(tokenizer, [("rows.jsonl:1", chat("A?", "b"))]) == ""
    with pytest.raises(DataError, match=rf"rows\.jsonl:7: message {number}, of the role {role}: .*{remedy}"):
        check_chats(tokenizer, [("rows.jsonl:1", chat("A?")), ("rows.jsonl:7", messages)])


def test_a_template_that_renders_earlier_answers_otherwise_is_reported_once():
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    chats = [("rows.jsonl:1", chat("A?", "b")), ("rows.jsonl:2", chat("A?", "t</think>b", "C?", "d")), ("rows.jsonl:3", chat("A?"))]
    for template, expected in ((CHATML, ""), (FORGETFUL, "rows.jsonl:2: the chat template of"), (None, "")):
        tokenizer.chat_template = template
        note = check_chats(tokenizer, chats)
        assert note.startswith(expected)
        assert bool(note) == bool(expected)
    tokenizer.chat_template = FORGETFUL
    assert "message 2 (assistant)" in check_chats(tokenizer, chats)
