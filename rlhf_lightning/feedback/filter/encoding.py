"""Repairs text that was decoded wrongly on its way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import ftfy

from rlhf_lightning.feedback.filter.cleaning import Cleaning, with_texts
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


@register("feedback_filter", "encoding")
def encoding(feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]:
    """Repairs mojibake by ftfy, composes letters (NFC), makes line ends \\n and takes out control characters but \\n and \\t.

    Altered records are kept and counted; one whose text is blank afterwards is removed. Direction marks and other invisible format
    characters stay: scripts and emoji need them. C1 controls become the Windows-1252 letters that they mostly stand for. Ftfy's
    guesses are right for nearly all text, not for all; leave the filter out where texts hold wrongly decoded characters on purpose.
    """
    for record in feedback:
        texts = with_texts(record, _repaired)
        if texts is None:
            done.remove(record, "blank without its control characters")
            continue
        if texts != record:
            done.change(record, "text repaired")
        yield texts


def _repaired(text: str) -> str:
    # One repair may uncover another; the bound only guards against a cycle.
    for _ in range(10):
        if text.isascii() and not _CONTROL.search(text):
            return text
        fixed = _CONTROL.sub("", ftfy.fix_text(text, _REPAIR))
        if fixed == text:
            return text
        text = fixed
    return text
