"""The script of a text, and records in another than was asked for."""

from __future__ import annotations

from functools import partial

import pytest

from rlhf_lightning.feedback.filter.script import script, scripts_of
from rlhf_lightning.flow import Feedback, Message, Prompt, Thumbs

TEXTS = {
    "Latin": "It is naïve, Łódź ﬁne ｆｕｌｌ",
    "Cyrillic": "Это чайник, OK",
    "Han": "这个水壶很好",
    "Japanese": "日本語で書いた文章です",
    "Hangul": "이 주전자는 좋다",
    "Greek": "Ο βραστήρας",
    "Arabic": "هذه الغلاية",
    "Hebrew": "הקומקום הזה",
    "Devanagari": "यह केतली अच्छी है",
    "Thai": "กาต้มน้ำนี้ดี",
}


@pytest.mark.parametrize(("name", "text"), TEXTS.items())
def test_scripts(name: str, text: str) -> None:
    assert scripts_of(text) == {name}


def test_texts_without_letters_and_ties() -> None:
    for text in ("", "123 + 456 = ?", "👍🏽", "𝑥² ℝ", "ʰ"):
        assert scripts_of(text) == frozenset()
    assert scripts_of("abаб") == {"Latin", "Cyrillic"}


def one(prompt: Prompt, response: str) -> Feedback:
    return Feedback(prompt=prompt, responses=(response,), judgement=Thumbs(up=True))


def test_the_prompt_s_script_where_none_is_allowed(cleaned) -> None:
    good = [one("Что это?", TEXTS["Cyrillic"]), one("What?", "42"), one("2 + 2", TEXTS["Greek"]), one("", TEXTS["Han"]), one("ab аб", "да")]
    chat = (Message(role="user", content="Что?"),)
    good.append(one(chat, "Чайник"))
    bad = [one("What?", TEXTS["Cyrillic"]), one(chat, "A kettle")]
    kept, cleaning = cleaned(script, good + bad)
    assert kept == good
    assert cleaning.removed == {"response in Cyrillic script": 1, "response in Latin script": 1}


def test_what_is_allowed_counts_alone(cleaned) -> None:
    records = [one("What?", TEXTS["Cyrillic"]), one("What?", "Latin"), one("Что?", TEXTS["Greek"]), one("What?", "!")]
    kept, _ = cleaned(partial(script, allowed=("Cyrillic", "Greek")), records)
    assert kept == [records[0], records[2], records[3]]
