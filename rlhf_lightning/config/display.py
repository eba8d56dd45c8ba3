"""Show text literally and without secrets: escapes, control characters, formulas, redaction."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

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


LEFT_OUT = "***"
_NAMES = r"key|token|password|passwd|passphrase|secret|credentials?"
_NAMED = re.compile(rf"(?i)({_NAMES})$")
_FLAG = re.compile(rf"(?i)--?[\w-]*({_NAMES})$")
_REFERENCE = r"(?!\$\{|null\b|\*\*\*)"
_PATTERNS = (
    # api_key=X as a word of a command: X is all that follows
    (re.compile(rf"(?i)^([+~]*[\w./@-]*(?:{_NAMES})=){_REFERENCE}.+", re.DOTALL), rf"\1{LEFT_OUT}"),
    # token=X within a text, as in an address
    (re.compile(rf"(?i)((?:{_NAMES})=){_REFERENCE}[^\s&'\",;\])}}]+"), rf"\1{LEFT_OUT}"),
    # --api-key X, also as items of a list
    (re.compile(rf"(?i)((?<![\w-])--?[\w-]*(?:{_NAMES})['\"]?(?:\s*,\s*|\s+)['\"]?){_REFERENCE}(?!-)[^\s'\",\]}}]+"), rf"\1{LEFT_OUT}"),
    # api_key: X and "api_key": "X" of a header, JSON or YAML
    (
        re.compile(
            r"(?i)((?:api[-_]?key|access[-_]?key|access[-_]?token|auth[-_]?token|password|passwd|secret)['\"]?\s*:\s*['\"]?)"
            rf"{_REFERENCE}[^\s'\",}}]+"
        ),
        rf"\1{LEFT_OUT}",
    ),
    # scheme://user:X@host, scheme://:X@host and scheme://X@host
    (re.compile(r"(://[^/\s:@]*:)(?!\*\*\*@)[^\s/'\"]+(?=@)"), rf"\1{LEFT_OUT}"),
    (re.compile(r"(://)[\w-]{20,}(?=@)"), rf"\1{LEFT_OUT}"),
    (re.compile(r"\b(Bearer\s+|[Aa]uthorization['\"]?\s*:\s*['\"]?Basic\s+)(?!\*)[\w.~+/=-]{6,}"), rf"\1{LEFT_OUT}"),
    (re.compile(r"\b(hf_)(?:(?=[a-zA-Z]*\d)(?=[a-z\d]*[A-Z])[A-Za-z\d]{8,}(?![\w-])|[A-Za-z\d]{16,})"), rf"\1{LEFT_OUT}"),
    (re.compile(r"\b(sk-|[rs]k_live_)(?:(?=[a-z_-]*[A-Z\d])[\w-]{10,}|[\w-]{24,})"), rf"\1{LEFT_OUT}"),
    (
        re.compile(r"\b(gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|AKIA|ASIA|AIza|ya29\.|npm_|pypi-|wandb_v\d_)[\w.-]{10,}"),
        rf"\1{LEFT_OUT}",
    ),
    (re.compile(r"\b(eyJ)[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), rf"\1{LEFT_OUT}"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END|\Z)", re.DOTALL), rf"\1{LEFT_OUT}"),
)
_GAP = re.compile(
    rf"(?i)(?:=|://|:)\*\*\*(?:@|$)|=\*\*\*|(?:Bearer|Basic) \*\*\*|--?[\w-]*(?:{_NAMES})['\"]?[\s,]\s*['\"]?\*\*\*"
    rf"|(?:{_NAMES})['\"]?\s*:\s*['\"]?\*\*\*"
    r"|(?:hf_|sk-|live_|gh[pousr]_|pat_|glpat-|xox\w-|AKIA|ASIA|AIza|ya29\.|npm_|pypi-|wandb_v\d_|eyJ|KEY-----)\*\*\*"
)
SHORTEST = 8
"""Shortest secret of the environment or the command that is redacted in messages."""


@functools.lru_cache(maxsize=4096)
def without_secret(text: str) -> str:
    """An argument, an address or another text without its secrets."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def without_secrets(node: Any, name: str = "") -> Any:
    """A configuration, or the arguments of a command, as plain containers without secrets.

    The text of anything named like a key, token, password or secret is redacted, the value of such a flag (`--api-key X`) too, and every
    other text is `without_secret`. Nothing is resolved: `${oc.env:NAME}` stays a reference.
    """
    node = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(node, dict):
        return {key: without_secrets(value, str(key)) for key, value in node.items()}
    if isinstance(node, list):
        return [LEFT_OUT if _is_value(node, i) else without_secrets(item, name) for i, item in enumerate(node)]
    if not isinstance(node, str) or node.startswith("${"):
        return node
    return LEFT_OUT if node and _NAMED.search(name) else without_secret(node)


def _is_value(items: Sequence[Any], i: int) -> bool:
    """Return whether an item is the value of the flag before it."""
    flag, item = items[i - 1] if i else None, items[i]
    return isinstance(flag, str) and _FLAG.fullmatch(flag) is not None and isinstance(item, str) and not item.startswith(("-", "${"))


def missing_secret(node: Any, key: str = "") -> str | None:
    """The key of a secret that a saved configuration lacks; None if it lacks none."""
    if isinstance(node, dict):
        items = ((value, f"{key}.{name}".lstrip(".")) for name, value in node.items())
        return next((missing for value, path in items if (missing := missing_secret(value, path))), None)
    if isinstance(node, list):
        gaps = (item == LEFT_OUT and _is_value(node, i) for i, item in enumerate(node))
        return key if any(gaps) or any(missing_secret(item, key) for item in node) else None
    is_gap = isinstance(node, str) and ((node == LEFT_OUT and _NAMED.search(key)) or _GAP.search(node))
    return key if is_gap else None


def safe_message(text: str) -> str:
    """A message for the terminal or a log, without secrets and control characters (`display.message`)."""
    return message(without_any_secret(text))


def without_any_secret(text: str) -> str:
    """`without_secret`, and without the secrets of the environment and the command wherever they appear."""
    for value in sorted(set(_values()), key=len, reverse=True):
        text = text.replace(value, LEFT_OUT)
    return without_secret(text)


class SafeRecord(logging.LogRecord):
    """A log record whose message, arguments included, has no secrets and no control characters."""

    def getMessage(self) -> str:
        return visible(without_any_secret(super().getMessage()))


def mask_logs() -> None:
    """Make every log record a SafeRecord: Hydra's sweepers log each job's overrides as typed."""
    logging.setLogRecordFactory(SafeRecord)


def _values() -> Iterator[str]:
    """The secrets of the environment and the command that are too long to be ordinary words."""
    yield from (value for name, value in os.environ.items() if _NAMED.search(name) and len(value) >= SHORTEST and "/" not in value)
    words = sys.argv[1:]
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        if _NAMED.search(name) and len(value) >= SHORTEST and not value.startswith("${"):
            yield value.strip("'\"")
        if _is_value(words, i) and len(word) >= SHORTEST:
            yield word
        for match in re.finditer(r"://[^/\s:@]*:([^\s/'\"]+)@", word):
            if len(match[1]) >= SHORTEST:
                yield match[1]
