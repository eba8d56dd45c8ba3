"""Invisible white space."""

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
def whitespace(feedback: Iterable[Feedback], cleaning: Cleaning, *, start: bool = True, prompts: bool = False) -> Iterator[Feedback]:
    """Strip blanks around responses, trailing blanks of lines, and empty lines beyond two in a row.

    Blanks are space, tab, no-break, wide and zero-width blanks. Indentation stays inside a text, and in the first line if a later line
    is indented, too (code). Markdown's line breaks by two trailing blanks are lost. Altered records are kept and counted; a record
    with a text of blanks only is removed. Comments are treated like responses.

    Args:
        start: also strip the start of a response; false for responses that continue the prompt's last line (" a lamp").
        prompts: treat prompts like responses, each message of a chat; responses may continue from their last blank.
    """
    for record in feedback:
        fixed = with_texts(record, partial(strip_blanks, start=start), prompt=prompts)
        if fixed is None:
            cleaning.remove(record, "nothing but blanks")
            continue
        if fixed is not record:
            cleaning.change(record, "blanks taken out")
        yield fixed


def strip_blanks(text: str, start: bool = True) -> str:
    """Strip blanks at both ends and at line ends; keep at most two empty lines in a row."""
    text = text.rstrip(_BLANKS + "\n")
    if "\n" in text:
        text = _EMPTY_LINES.sub("\n\n\n", _TRAILING.sub("", text))
    if start:
        text = _FIRST_LINES.sub("", text)
        text = text if _INDENTED_LATER.search(text) else text.lstrip(_BLANKS)
    return text
