"""Show text literally in terminals, Markdown and spreadsheets: escapes, control characters, formulas."""

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
"""Characters that terminals and browsers act on, and their replacements."""
FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""First characters of a formula in spreadsheets, full-width forms included."""
PLAIN_WORDS = re.compile(r"[A-Za-z0-9]+(?:[ _/,%+-][A-Za-z0-9]+)*")
"""Texts in which no Markdown renderer sees markup, a link or an entity."""
MAX_CODE = 300
"""Characters of a text in Markdown; a longer one is cut."""


def visible(text: str) -> str:
    """Replace control and bidirectional characters by pictures or escapes, lone surrogates by "?"."""
    return text.translate(CONTROLS).encode("utf-8", "replace").decode("utf-8")


def literal(text: str, console: Console) -> Text:
    """A text for rich without markup or control characters; "?" for characters the console can't encode."""
    from rich.text import Text

    encoding = console.encoding or "utf-8"
    return Text(visible(text).encode(encoding, "replace").decode(encoding))


def message(text: str) -> str:
    """A `visible` message with later lines indented, so that none looks like the program's."""
    return visible(text).rstrip("\n").replace("\n", "\n  ")


def markdown(text: str) -> str:
    """One line of literal Markdown, valid in a table cell; a code span for more than plain words."""
    return _per_cell(text, lambda part: part if PLAIN_WORDS.fullmatch(part) and "www" not in part.lower() else _code_span(part))


def markdown_code(text: str) -> str:
    """A text as one line of code spans, in which Markdown interprets nothing."""
    return _per_cell(text, _code_span)


def _per_cell(text: str, write: Callable[[str], str]) -> str:
    """Write one line of at most MAX_CODE characters, with pipes escaped outside of code spans."""
    line = " ".join(visible(text).split())
    line = line if len(line) <= MAX_CODE else f"{line[: MAX_CODE - 1]}…"
    parts = (re.fullmatch("( ?)(.*?)( ?)", part) for part in line.split("|"))
    return r"\|".join(f"{match[1]}{write(match[2]) if match[2] else ''}{match[3]}" for match in parts if match)


def _code_span(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def csv_cell(value: Any) -> Any:
    """A CSV value; a text that a spreadsheet would run as a formula gets an apostrophe in front.

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
