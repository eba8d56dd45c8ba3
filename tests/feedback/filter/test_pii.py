"""Personal data by its form."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.filter.pii import PII_TYPES, pii, redact
from rlhf_lightning.flow import Comment, Feedback, SpanLabel, Spans, Thumbs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jo.do+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("<jörg@müller.de>", "<[EMAIL]>"),
        ("DE89 3704 0044 0532 0130 00 AND MORE", "[IBAN] AND MORE"),
        ("GB82WEST12345698765432, NO9386011117947", "[IBAN], [IBAN]"),
        ("4111 1111 1111 1111", "[CARD]"),
        ("card 378282246310005! 3782-822463-10005", "card [CARD]! [CARD]"),
        ("5500 0000 0000 0004, 4000-0566-5566-5556", "[CARD], [CARD]"),
        ("SSN 078-05-1120.", "SSN [SSN]."),
        ("+49 (30) 901820, +1-202-555-0143", "[PHONE], [PHONE]"),
        ("(202) 555-0143 or 202.555.0143", "[PHONE] or [PHONE]"),
        ("at 192.168.0.255.", "at [IP]."),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334 / 2001:db8:1:2::5", "[IP] / [IP]"),
    ],
)
def test_found(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "me @ home, a@b, user@localhost",
        "DE88 3704 0044 0532 0130 00",  # the checksum is wrong
        "4111 1111 1111 1112",  # Luhn's check fails
        "0000 0000 0000 0000",
        "4444444444444",
        "4111-1111 1111-1111",
        "000-12-3456 666-12-3456 912-12-3456 123-00-1234 123-45-0000",
        "in 2019-2020, 3.14159265358979, 12:30:45, 1,234,567,890",
        "256.1.1.1 and 1.2.3 and 1.2.3.4.5",
        "std::vector a::b 10:20",
        "order 20240131-0007",
    ],
)
def test_left_alone(text: str) -> None:
    assert redact(text) == text


def luhn_digit(digits: str) -> str:
    """The check digit by the rule's other wording: double from the right end, beginning with the last."""
    total = sum(sum(divmod(int(d) * (2 if i % 2 == 0 else 1), 10)) for i, d in enumerate(reversed(digits)))
    return str(-total % 10)


@pytest.mark.parametrize("seed", range(5))
def test_a_card_is_found_and_none_with_another_digit(seed: int) -> None:
    dice = random.Random(seed)
    digits = "4" + "".join(dice.choices("0123456789", k=14))
    check = luhn_digit(digits)
    assert redact(digits + check, ["card"]) == "[CARD]"
    assert all(redact(digits + other, ["card"]) != "[CARD]" for other in "0123456789" if other != check)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["a@b.co", "4111111111111111", "078-05-1120", "+4930901820", "1.2.3.4", "1:2:3:4::", " ", "-", ".", "x", "7"]),
        max_size=8,
    )
)
def test_what_is_replaced_stays_replaced(parts: list[str]) -> None:
    once = redact("".join(parts))
    assert redact(once) == once


def test_a_long_text_without_any_is_no_trouble() -> None:
    for text in ("a" * 100_000, "1" * 100_000, "a." * 50_000, "1 " * 50_000, "a:" * 50_000, "DE" * 50_000, "a@" * 50_000):
        assert redact(text) == text


def one(text: str, judgement=None) -> Feedback:
    return Feedback(prompt="Mail a@b.co?", responses=(text,), judgement=judgement or Thumbs(up=True), origin="f:1")


def test_actions(cleaned) -> None:
    clean = Feedback(prompt="p", responses=("fine",), judgement=Thumbs(up=True))
    record = one("call +4930901820", Spans(spans=(SpanLabel(start=0, end=4, value=1), SpanLabel(start=7, end=9, value=-1))))
    kept, cleaning = cleaned(pii, [record, clean])
    assert (kept[0].prompt, kept[0].responses[0], kept[1]) == ("Mail [EMAIL]?", "call [PHONE]", clean)
    assert [kept[0].responses[0][span.start : span.end] for span in kept[0].judgement.spans] == ["call", "[PHONE]"]
    assert (cleaning.changed, cleaning.notes) == ({"personal data replaced": 1}, ["pii: 1 email, 1 phone"])
    kept, cleaning = cleaned(partial(pii, action="drop"), [record, clean])
    assert (kept, cleaning.removed) == ([clean], {"holds personal data": 1})
    kept, cleaning = cleaned(partial(pii, action="note"), [record, clean])
    assert (kept, cleaning.flagged) == ([record, clean], {"holds personal data": 1})


def test_kinds_and_comments(cleaned) -> None:
    record = one("fine", Comment(text="ask a@b.co at 1.2.3.4"))
    kept, _ = cleaned(partial(pii, kinds=("ip",)), [record])
    assert (kept[0].prompt, kept[0].judgement.text) == ("Mail a@b.co?", "ask a@b.co at [IP]")


def test_counts() -> None:
    counts: Counter[str] = Counter()
    redact("a@b.co c@d.co 1.2.3.4", PII_TYPES, counts)
    assert counts == {"email": 2, "ip": 1}
