"""Text from data, files and commands for people to read: shown literally in terminals, Markdown and spreadsheets, never interpreted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PICTURES = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {127: "\u2421"}
"""ASCII control characters, but tab and newline, as the pictures that Unicode has of them."""
BIDI_CONTROLS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS: Mapping[int, str] = {
    **PICTURES,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    **{code: f"\\u{code:04x}" for code in (*BIDI_CONTROLS, 0x2028, 0x2029, 0xFEFF, *range(0xFFF9, 0xFFFC))},
}
"""Characters that terminals and browsers act on, and what is shown in their place."""
FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""What spreadsheets take for the start of a formula, the full-width forms included."""
PLAIN_WORDS = re.compile(r"[A-Za-z0-9]+(?:[ _/,%+-][A-Za-z0-9]+)*")
"""Texts in which no Markdown renderer sees markup, a link or an entity."""
MAX_CODE = 300
"""Characters of a text in Markdown; a longer one is cut."""


def visible(text: str) -> str:
    """The text with control and bidirectional characters as pictures or escapes, and with "?" for lone surrogates."""
    return text.translate(CONTROLS).encode("utf-8", "replace").decode("utf-8")


def literal(text: str, console: Console) -> Text:
    """A text for rich without markup, emoji codes or control characters, and with "?" for what the console's encoding lacks."""
    from rich.text import Text

    encoding = console.encoding or "utf-8"
    return Text(visible(text).encode(encoding, "replace").decode(encoding))


def message(text: str) -> str:
    """A `visible` message whose later lines are indented: no text in it can pose as a line of the program's."""
    return visible(text).rstrip("\n").replace("\n", "\n  ")


def markdown(text: str) -> str:
    """A text as one line of Markdown that shows it literally, also in a cell of a table: plain words as they are, else `markdown_code`."""
    return _per_cell(text, lambda part: part if PLAIN_WORDS.fullmatch(part) and "www" not in part.lower() else _code_span(part))


def markdown_code(text: str) -> str:
    """A text as one line of code spans, in which Markdown interprets nothing."""
    return _per_cell(text, _code_span)


def _per_cell(text: str, write: Callable[[str], str]) -> str:
    """One line of at most MAX_CODE characters. A pipe ends a cell of a table even within a code span: it is escaped outside of them."""
    line = " ".join(visible(text).split())
    line = line if len(line) <= MAX_CODE else f"{line[: MAX_CODE - 1]}…"
    parts = (re.fullmatch("( ?)(.*?)( ?)", part) for part in line.split("|"))
    return r"\|".join(f"{found[1]}{write(found[2]) if found[2] else ''}{found[3]}" for found in parts if found)


def _code_span(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def csv_cell(value: Any) -> Any:
    """A value of a CSV file that people open in a spreadsheet: a text that would run as a formula gets an apostrophe in front.

    Numbers stay, also those that are written as text (-0.5, +3, 1e-4).
    """
    if not isinstance(value, str) or not value:
        return value
    start = next((char for char in value if unicodedata.category(char)[0] not in "CZ"), "")
    if value[0] not in "\t\r\n" and start not in FORMULA_STARTS:
        return value
    return value if start and _is_number(value) else f"'{value}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan|Infinity|NaN)", text) is not None
