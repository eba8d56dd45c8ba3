"""Text repaired, and text left alone."""

from __future__ import annotations

import itertools
import re

import ftfy
import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.filter.encoding import _REPAIR, _is_clean, encoding, repair
from rlhf_lightning.flow import Comment, Edit, Feedback, Message, Thumbs


def one(text: str) -> Feedback:
    return Feedback(prompt=text, responses=("a", text), judgement=Edit(), origin="f:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schÃ¶n", "schön"),
        ("itâ€™s", "it’s"),
        ("e\u0301", "é"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x07b\x00c\x7fd", "abcd"),
        ("10\x80", "10€"),
        ("Ã\x07©", "é"),
    ],
)
def test_repaired_and_counted(text: str, expected: str, cleaned) -> None:
    kept, cleaning = cleaned(encoding, [one(text), one("fine")])
    assert [(r.prompt, r.responses[1]) for r in kept] == [(expected, expected), ("fine", "fine")]
    assert cleaning.changed == {"text repaired": 1}


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\nline",
        "“curly” ‘quotes’",
        "ﬁne ligature",
        "ｆｕｌｌ",
        "&lt;b&gt; &amp;",
        "👨‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "a\u202eb\u200f",
        "naïve Übung 猫 กา",
        "<|endoftext|>",
    ],
)
def test_left_alone(text: str, cleaned) -> None:
    kept, cleaning = cleaned(encoding, [one(text)])
    assert kept == [one(text)]
    assert cleaning.changed == {}


def test_nothing_left_is_removed(cleaned) -> None:
    kept, cleaning = cleaned(encoding, [one("\x07\x08")])
    assert (kept, cleaning.removed) == ([], {"blank without its control characters": 1})


def test_a_chat_s_messages_and_a_comment_are_texts_and_an_empty_prompt_is_none(cleaned) -> None:
    talk = (Message(role="system", content=""), Message(role="user", content="schÃ¶n"))
    comment = Comment(text="sehr schÃ¶n", start=0, end=1)
    chat = Feedback(prompt=talk, responses=("a",), judgement=comment)
    bare = Feedback(prompt="", responses=("Ã¶ a",), judgement=Thumbs(up=True))
    kept, cleaning = cleaned(encoding, [chat, bare])
    assert [message.content for message in kept[0].prompt] == ["", "schön"]
    assert kept[0].judgement == Comment(text="sehr schön", start=0, end=1)
    assert (kept[1].prompt, kept[1].responses) == ("", ("ö a",))
    assert cleaning.changed == {"text repaired": 2}


def slowly_repaired(text: str) -> str:
    """What `repaired` is, without its shortcut."""
    for _ in range(10):
        fixed = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", ftfy.fix_text(text, _REPAIR))
        if fixed == text:
            break
        text = fixed
    return text


LETTERS = "aZ .\n\r\t\x1b\x85\xa0\xad°²é€‚„“’–ÂÃÎÐØÙàáâïñöøŒœŸŽžšāěА-вЂГВРСΒβΩ°√≈†×³¹│┐─中か가ﬁ\u0301\u200b\u2028\ufeff\ufffd�😀"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(LETTERS), max_size=12) | st.text(max_size=12))
def test_the_shortcut_changes_nothing(text: str) -> None:
    assert repair(text) == slowly_repaired(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8), st.sampled_from(["latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1257", "macroman", "cp437"]))
def test_the_shortcut_changes_nothing_on_wrongly_decoded_text(text: str, codec: str) -> None:
    wrong = f"in {text}".encode("utf-8", "replace").decode(codec, "replace")
    assert repair(wrong) == slowly_repaired(wrong)


def test_the_shortcut_passes_nothing_that_ftfy_finds_bad() -> None:
    """Every triple of letters, one or two of each of ftfy's categories and some that its rules name."""
    some = {letters[0] for letters in MOJIBAKE_CATEGORIES.values()} | {letters[-1] for letters in MOJIBAKE_CATEGORIES.values()}
    some |= set("aZ .ÂÃœ°×²вЂГРβΒāà√±≈‚Äìó™œ")
    triples = ["".join(triple) for triple in itertools.product(sorted(some), repeat=3)]
    bad = [triple for triple in triples if is_bad(triple)]
    assert len(bad) > 10_000
    assert [triple for triple in bad if _is_clean(triple)] == []
    assert any(_is_clean(triple) for triple in triples if not triple.isascii())
