"""Personal data, recognised by its format."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning, with_texts
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

PiiType = Literal["email", "iban", "card", "ssn", "phone", "ip"]
PII_TYPES: tuple[PiiType, ...] = ("email", "iban", "card", "ssn", "phone", "ip")
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
    """Return a pattern with one branch per country: its letters, two check digits, the rest by length."""
    return "|".join(rf"{entry[:2]}[0-9]{{2}}(?: ?[A-Z0-9]){{{int(entry[2:]) - 4}}}" for entry in _IBAN_LENGTHS.split())


def _is_iban(text: str) -> bool:
    """Check ISO 13616: the first four characters moved to the end, letters as 10 to 35, modulo 97 is 1."""
    normalise_text = text.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in normalise_text[4:] + normalise_text[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1), and more than one distinct digit.

    With every second digit from the right doubled, the sum of digits is a multiple of ten.
    """
    digits = [int(digit) for digit in re.sub("[^0-9]", "", text)]
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_phone(text: str) -> bool:
    """Check for 8 to 15 digits (ITU-T E.164)."""
    return 8 <= sum(map(str.isdigit, text)) <= 15


def _is_address(text: str) -> bool:
    """Accept an IPv4 address, or an IPv6 address of at least four groups: `a::b` is mostly code."""
    if ":" not in text:
        return True
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return sum(map(bool, text.split(":"))) >= 4


_ANY_MARK = re.compile("[0-9@:]")
"""A character that every kind of personal data contains."""
_PATTERNS: dict[PiiType, tuple[re.Pattern[str], Callable[[str], bool]]] = {
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
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    kinds: tuple[PiiType, ...] = PII_TYPES,
    action: Literal["redact", "drop", "note"] = "redact",
) -> Iterator[Feedback]:
    """Replace personal data by its type in brackets ("[EMAIL]"), or drop or flag its records.

    Data is recognised by its format only: e-mail addresses, IBANs (checksum), payment cards (Luhn's check), US social security numbers,
    phone numbers (with + and country code, or in the North American layout) and IP addresses. Names, street addresses and other
    countries' numbers are not recognised, and there are false positives: no guarantee that nothing remains.
    Prompts, responses and comments are searched, names of annotators and files aren't.

    Args:
        kinds: the types to search.
        action: "redact" replaces; "drop" removes the record; "note" keeps it unchanged and counts it.
    """
    counts: Counter[str] = Counter()
    for record in feedback:
        clean = with_texts(record, lambda text: redact(text, kinds, counts))
        if clean is None or clean is record:
            yield record
        elif action == "drop":
            cleaning.remove(record, "holds personal data")
        elif action == "note":
            cleaning.flag(record, "holds personal data")
            yield record
        else:
            cleaning.change(record, "personal data replaced")
            yield clean
    if counts:
        cleaning.notes.append("pii: " + ", ".join(f"{counts[kind]} {kind}" for kind in PII_TYPES if counts[kind]))


def redact(text: str, kinds: Iterable[PiiType] = PII_TYPES, counts: Counter[str] | None = None) -> str:
    """Replace personal data by its type in brackets and count it."""
    if not _ANY_MARK.search(text):
        return text
    previous = None
    while previous != text:  # a replacement may expose the border of another
        previous = text
        for kind in kinds:
            pattern, is_valid = _PATTERNS[kind]

            def replace(match: re.Match[str], kind: PiiType = kind, is_valid: Callable[[str], bool] = is_valid) -> str:
                if not is_valid(match.group()):
                    return match.group()
                if counts is not None:
                    counts[kind] += 1
                return f"[{kind.upper()}]"

            text = pattern.sub(replace, text)
    return text
