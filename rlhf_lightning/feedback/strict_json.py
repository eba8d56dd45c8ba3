"""Strict JSON: rejects input that Python's parser would accept or change silently."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from rlhf_lightning.feedback.row import describe_value


def strict_object(raw: bytes, offset: int) -> dict[str, Any]:
    """Parse one JSON object; see `strict_json`."""
    data = strict_json(raw, offset)
    if not isinstance(data, dict):
        raise ValueError(f"a row must be a JSON object, not {describe_value(data)}")
    return data


def strict_json(raw: bytes, offset: int) -> Any:
    """Parse one JSON value in strict UTF-8.

    Args:
        offset: of the bytes in their file, for messages.

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
    # Only an escape can produce NUL or a lone surrogate.
    if b"\\u" in raw:
        check_texts(data)
    return data


def not_utf8(error: UnicodeDecodeError, offset: int) -> str:
    """Describe a decoding error of bytes at this offset of their file."""
    byte = error.object[error.start]
    return f"not UTF-8: byte 0x{byte:02x} at byte offset {offset + error.start} of the file; save it as UTF-8"


def check_texts(data: Any) -> None:
    """Raise ValueError, naming the outermost field, if a text or key holds NUL or a lone surrogate."""
    fields = data.items() if isinstance(data, dict) else [("a value", data)]
    for field, root in fields:
        stack: list[Any] = [field, root]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                stack += value
            elif isinstance(value, str):
                _check_letters(value, ascii(field)[:60])


def replace_unstorable(value: Any) -> Any:
    """A JSON value with U+FFFD for each NUL and lone surrogate, so that `strict_json` reads it back."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {replace_unstorable(key): replace_unstorable(item) for key, item in value.items()}
    return [replace_unstorable(item) for item in value] if isinstance(value, list | tuple) else value


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
    """NaN, Infinity or -Infinity, accepted by Python's parser."""


def _reject_constant(name: str) -> NoReturn:
    raise _NotANumber(name)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_reject_constant)
