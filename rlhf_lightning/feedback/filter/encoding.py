"""Repair of wrongly decoded text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

import ftfy
from ftfy.badness import MOJIBAKE_CATEGORIES

from rlhf_lightning.feedback.cleaning import Cleaning, with_texts
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Only wrong decoding and line ends are repaired; quotes, ligatures, widths and HTML stay.
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    remove_control_chars=False,
    normalization="NFC",
)
# A prefilter forty times as fast as ftfy's search for mojibake. Every match of ftfy's contains one of these letters next to another
# non-ASCII letter, or a letter that is suspect by itself (tested). The excluded categories are common letters.
_ALONE = "ŒœÃÂ\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff"
_COMMON = ("common", "lower_common", "upper_common", "lower_accented", "kaomoji")
_RARE = "".join(letters for name, letters in MOJIBAKE_CATEGORIES.items() if name not in _COMMON)
_SUSPECT = re.compile(rf"[{_ALONE}{_RARE}°ÙЂ](?:(?<=[{_ALONE}])|(?=[^\x00-\x7f])|(?<=[^\x00-\x7f].))", re.DOTALL)


@register("feedback_filter", "encoding")
def encoding(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Repair mojibake by ftfy, compose letters (NFC), unify line ends, remove control characters.

    Tabs stay. Altered records are kept and counted; a record with a text that is blank afterwards is removed. Direction marks and
    other invisible format characters stay: scripts and emoji need them. C1 controls become Windows-1252 letters. Ftfy's
    guesses are right for nearly all text; don't use the filter if texts contain wrongly decoded characters on purpose.
    """
    for record in feedback:
        fixed = with_texts(record, repair)
        if fixed is None:
            cleaning.remove(record, "blank without its control characters")
            continue
        if fixed is not record:
            cleaning.change(record, "text repaired")
        yield fixed


def repair(text: str) -> str:
    """Apply ftfy, NFC and the removal of control characters until nothing changes."""
    # One repair may expose another; the bound only guards against a cycle.
    for _ in range(10):
        if _is_clean(text):
            return text
        fixed = _CONTROL.sub("", ftfy.fix_text(text, _REPAIR))
        if fixed == text:
            return text
        text = fixed
    return text


def _is_clean(text: str) -> bool:
    """Return True for a text that certainly needs no repair, without calling ftfy."""
    if text.isascii():
        return text.isprintable() or not _CONTROL.search(text)
    return not _SUSPECT.search(text) and unicodedata.is_normalized("NFC", text)
