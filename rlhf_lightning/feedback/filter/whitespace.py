"""Takes blanks from where nobody sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial

from rlhf_lightning.feedback.cleaning import Cleaning, with_texts
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

# Control characters, \r among them, are the encoding filter's; joiners and direction marks belong to their scripts.
_BLANKS = "\t \xa0\u1680\u202f\u205f\u2060\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))
_TRAILING = re.compile(rf"(?<![{_BLANKS}])[{_BLANKS}]+(?=\n)")
_EMPTY_LINES = re.compile(r"\n{4,}")
_FIRST_LINES = re.compile(rf"\A(?:[{_BLANKS}]*\n)+")
_INDENTED_LATER = re.compile(rf"\n[{_BLANKS}]")


@register("feedback_filter", "whitespace")
def whitespace(feedback: Iterable[Feedback], done: Cleaning, *, start: bool = True, prompts: bool = False) -> Iterator[Feedback]:
    """Takes out blanks around responses, blanks at the ends of lines, and empty lines beyond two in a row.

    Blanks are space, tab, no-break, wide and zero-width blanks. Indentation stays: inside a text always, and that of the first line
    where a later line is indented, too (code). The two blanks at a line's end with which Markdown breaks lines are lost. Altered
    records are kept and counted; one with a text that is nothing but blanks is removed. Comments are treated as responses are.

    Args:
        start: also take blanks and empty lines before a response; false where responses go on in the prompt's last line (" a lamp").
        prompts: treat prompts as responses, each message of a chat; their last blank may be what responses go on from.
    """
    for record in feedback:
        mended = with_texts(record, partial(tidied, start=start), prompt=prompts)
        if mended is None:
            done.remove(record, "nothing but blanks")
            continue
        if mended is not record:
            done.change(record, "blanks taken out")
        yield mended


def tidied(text: str, start: bool = True) -> str:
    """The text without blanks at its end, at its start and at its lines' ends, and with two empty lines in a row at most."""
    text = text.rstrip(_BLANKS + "\n")
    if "\n" in text:
        text = _EMPTY_LINES.sub("\n\n\n", _TRAILING.sub("", text))
    if start:
        text = _FIRST_LINES.sub("", text)
        text = text if _INDENTED_LATER.search(text) else text.lstrip(_BLANKS)
    return text
