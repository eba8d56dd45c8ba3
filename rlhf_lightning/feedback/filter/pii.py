"""Finds personal data by its form."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning, with_texts
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

Kind = Literal["email", "iban", "card", "ssn", "phone", "ip"]
KINDS: tuple[Kind, ...] = ("email", "iban", "card", "ssn", "phone", "ip")
# Characters of an IBAN by country (SWIFT's IBAN registry).
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 "
    "GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 "
    "MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# 4-4-4-4 with a rest, as most cards write it, or 4-6-5 and 4-6-4 (American Express, Diners Club).
_CARD_IN_GROUPS = r"[2-6][0-9]{3}([ -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?|[0-9]{6}\1[0-9]{4,5})"


def _iban() -> str:
    """One branch for each country: its letters, two check digits, and as many letters and digits as its IBANs have."""
    return "|".join(rf"{entry[:2]}[0-9]{{2}}(?: ?[A-Z0-9]){{{int(entry[2:]) - 4}}}" for entry in _IBAN_LENGTHS.split())


def _is_iban(found: str) -> bool:
    """ISO 13616: the first four characters behind the rest, letters as 10 to 35, leave 1 when divided by 97."""
    plain = found.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_card(found: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1): every second digit from the right doubled, the digits' sum a multiple of ten. No row of one digit."""
    digits = [int(digit) for digit in re.sub("[^0-9]", "", found)]
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_phone(found: str) -> bool:
    """8 to 15 digits (ITU-T E.164)."""
    return 8 <= sum(map(str.isdigit, found)) <= 15


def _is_address(found: str) -> bool:
    """An IPv4 address, or an IPv6 address of four groups or more: `a::b` is code more often."""
    if ":" not in found:
        return True
    try:
        ipaddress.IPv6Address(found)
    except ValueError:
        return False
    return sum(map(bool, found.split(":"))) >= 4


_ANY = re.compile("[0-9@:]")
"""What all of them hold one of."""
_FORMS: dict[Kind, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@-])"), bool),
    "iban": (re.compile(rf"(?<!\w)(?=[A-Z]{{2}}[0-9]{{2}})(?:{_iban()})(?!\w)"), _is_iban),
    "card": (re.compile(rf"(?<![\w.+-])(?:[2-6][0-9]{{12,18}}|{_CARD_IN_GROUPS})(?![\w-])"), _is_card),
    "ssn": (re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-])"), bool),
    "phone": (
        re.compile(
            r"(?<![\w.+-])(?:\+[1-9](?:[ ./-]?\(?[0-9]\)?){7,14}|(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[0-9]{3}[ .-][0-9]{4})"
            r"(?![\w-])"
        ),
        _is_phone,
    ),
    "ip": (
        re.compile(rf"(?<![\w.:-])(?:(?:{_OCTET}\.){{3}}{_OCTET}(?!\.?[\w-])|[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?![\w:]))"),
        _is_address,
    ),
}


@register("feedback_filter", "pii")
def pii(
    feedback: Iterable[Feedback], done: Cleaning, *, kinds: tuple[Kind, ...] = KINDS, action: Literal["redact", "drop", "note"] = "redact"
) -> Iterator[Feedback]:
    """Replaces personal data by its kind in brackets ("[EMAIL]"), or drops the records that hold some, or points at them.

    It knows data by its form alone: e-mail addresses, IBANs (checksum), payment cards (Luhn's check), US social security numbers,
    phone numbers (with + and country code, or in the North American layout) and IP addresses. Names, street addresses and other
    countries' numbers are not found, and some numbers that are none are taken for one. A help, and no proof that nothing is left.
    Prompts, responses and comments are searched, names of annotators and files aren't.

    Args:
        kinds: what to look for.
        action: "redact" replaces; "drop" removes the record; "note" keeps it as it is.
    """
    counts: Counter[str] = Counter()
    for record in feedback:
        clean = with_texts(record, lambda text: redacted(text, kinds, counts))
        if clean is None or clean is record:
            yield record
        elif action == "drop":
            done.remove(record, "holds personal data")
        elif action == "note":
            done.find(record, "holds personal data")
            yield record
        else:
            done.change(record, "personal data replaced")
            yield clean
    if counts:
        done.notes.append("pii: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]))


def redacted(text: str, kinds: Iterable[Kind] = KINDS, counts: Counter[str] | None = None) -> str:
    """The text with what looks like personal data replaced by its kind in brackets, and counted."""
    if not _ANY.search(text):
        return text
    before = None
    while before != text:  # a replacement may bare the border of another
        before = text
        for kind in kinds:
            pattern, is_one = _FORMS[kind]

            def replace(match: re.Match[str], kind: Kind = kind, is_one: Callable[[str], bool] = is_one) -> str:
                if not is_one(match.group()):
                    return match.group()
                if counts is not None:
                    counts[kind] += 1
                return f"[{kind.upper()}]"

            text = pattern.sub(replace, text)
    return text
