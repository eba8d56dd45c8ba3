"""Repairs text that was decoded wrongly on its way."""

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
# Repairs wrong decoding and line ends; quotes, ligatures, widths and HTML are the writer's and stay.
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    remove_control_chars=False,
    normalization="NFC",
)
# Ftfy's search for mojibake takes forty times as long as this one. All that it finds has one of these letters beside another that
# isn't ASCII, or one of those that are suspect by themselves; a test holds it to that. The categories left out are common letters.
_ALONE = "ŒœÃÂ\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff"
_COMMON = ("common", "lower_common", "upper_common", "lower_accented", "kaomoji")
_RARE = "".join(letters for name, letters in MOJIBAKE_CATEGORIES.items() if name not in _COMMON)
_SUSPECT = re.compile(rf"[{_ALONE}{_RARE}°ÙЂ](?:(?<=[{_ALONE}])|(?=[^\x00-\x7f])|(?<=[^\x00-\x7f].))", re.DOTALL)


@register("feedback_filter", "encoding")
def encoding(feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]:
    """Repairs mojibake by ftfy, composes letters (NFC), makes line ends \\n and takes out control characters but \\n and \\t.

    Altered records are kept and counted; one with a text that is blank afterwards is removed. Direction marks and other invisible
    format characters stay: scripts and emoji need them. C1 controls become the Windows-1252 letters that they mostly stand for. Ftfy's
    guesses are right for nearly all text, not for all; leave the filter out where texts hold wrongly decoded characters on purpose.
    """
    for record in feedback:
        mended = with_texts(record, repaired)
        if mended is None:
            done.remove(record, "blank without its control characters")
            continue
        if mended is not record:
            done.change(record, "text repaired")
        yield mended


def repaired(text: str) -> str:
    """The text as ftfy, NFC and the removal of control characters leave it, again and again until nothing changes."""
    # One repair may uncover another; the bound only guards against a cycle.
    for _ in range(10):
        if _is_clean(text):
            return text
        fixed = _CONTROL.sub("", ftfy.fix_text(text, _REPAIR))
        if fixed == text:
            return text
        text = fixed
    return text


def _is_clean(text: str) -> bool:
    """Whether the text is surely as it should be, found out without ftfy."""
    if text.isascii():
        return text.isprintable() or not _CONTROL.search(text)
    return not _SUSPECT.search(text) and unicodedata.is_normalized("NFC", text)
