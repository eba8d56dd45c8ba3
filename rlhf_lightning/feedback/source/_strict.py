"""JSON read strictly: what Python's parser would take or change in silence is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from rlhf_lightning.feedback.row import kind_of


def strict_object(raw: bytes, offset: int) -> dict[str, Any]:
    """The JSON object that the bytes hold; see `strict_json`."""
    data = strict_json(raw, offset)
    if not isinstance(data, dict):
        raise ValueError(f"a row must be a JSON object, not {kind_of(data)}")
    return data


def strict_json(raw: bytes, offset: int) -> Any:
    """The one JSON value that the bytes hold, in strict UTF-8.

    Args:
        offset: where the bytes stand in their file, for messages.

    Raises:
        ValueError: with the reason; besides broken JSON a key given twice, NaN and Infinity, lone surrogates, NUL (databases can't
            hold it) and nesting too deep to parse.
    """
    try:
        data = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error, offset)) from None
    except _NotANumber as error:
        field = re.search(rf'("[^"]{{1,60}}")\s*:[^"]*{error}'.encode(), raw)
        raise ValueError(f"{field[1].decode() if field else 'a value'} is {error}, which is not a JSON number") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
    # Only an escape can bring in what strict UTF-8 and strict JSON keep out.
    if b"\\u" in raw:
        check_texts(data)
    return data


def not_utf8(error: UnicodeDecodeError, offset: int) -> str:
    """What to say of bytes that aren't UTF-8 and stand at this offset of their file."""
    byte = error.object[error.start]
    return f"not UTF-8: byte 0x{byte:02x} at byte offset {offset + error.start} of the file; save it as UTF-8"


def check_texts(data: Any) -> None:
    """Raises ValueError where a text or key in a JSON value holds NUL or a lone surrogate, with the outermost field's name."""
    fields = data.items() if isinstance(data, dict) else [("a value", data)]
    for field, whole in fields:
        stack: list[Any] = [field, whole]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                stack += value
            elif isinstance(value, str):
                _check_letters(value, ascii(field)[:60])


def _check_letters(text: str, field: str) -> None:
    if "\x00" in text:
        raise ValueError(f"{field} holds a NUL character (\\u0000), which databases can't; take it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{field} holds a lone surrogate (\\ud800 to \\udfff), which is no character") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {ascii(twice)[:60]} is given twice")
    return data


class _NotANumber(ValueError):
    """NaN, Infinity or -Infinity, which Python's parser would take."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumber(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
