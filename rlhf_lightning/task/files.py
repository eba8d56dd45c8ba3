"""The user's own prompts and demonstrations, from JSON Lines files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import stat
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, NoReturn, TypeVar

from pydantic import Field, PositiveInt

from rlhf_lightning.config.schema import FilePath, did_you_mean
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row_fields import CONTEXT, STRENGTH, reject_unread
from rlhf_lightning.flow import FramedPrompt, Prompt
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.registry import register

Row = TypeVar("Row", TaskPrompt, Demonstration)
MAX_RATIO, SMALL = 200, 64 << 20
"""Highest unpacking ratio beyond the first SMALL bytes: text packs to a twentieth, an archive bomb to a thousandth."""


@register("task", "files")
class Files:
    """Your own prompts and optional demonstrations from JSON Lines files, without a utility.

    A file (plain or gzip) has one JSON object per line; empty lines are skipped. Prompts with the same Unicode NFC form are duplicates;
    the first is kept. Held-out prompts are neither among the training prompts nor in the demonstrations.

    Args:
        prompts: the file of prompts.
        test_prompts: the file of held-out prompts; null holds out a fraction of `prompts`.
        prompt_field: the key of the prompt, in all files.
        demonstrations: the file of prompts with responses for supervised fine-tuning, possibly the file of prompts.
        response_field: the key of the response in it.
        test_fraction: fraction of `prompts` to hold out without test_prompts, by a prompt's sha256, independent of the rest of the
            file.
        limit: maximum of prompts, of test prompts and of demonstrations, the first ones; null keeps all.
        prefix, suffix: text around every prompt. Strings of the model's special tokens in them are special tokens, as in a chat format
            (<|im_start|>), and \\n and \\t a line break and a tab; in the prompts themselves they stay plain text.

    Raises:
        DataError: naming file, line and field.
    """

    has_utility = False

    def __init__(
        self,
        *,
        prompts: FilePath,
        test_prompts: FilePath | None = None,
        prompt_field: str = "prompt",
        demonstrations: FilePath | None = None,
        response_field: str = "response",
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        limit: PositiveInt | None = None,
        prefix: str = "",
        suffix: str = "",
    ) -> None:
        texts = _distinct(prompts, prompt_field)
        if test_prompts is not None:
            held_out = _distinct(test_prompts, prompt_field)
        else:
            held_out = {key: row for key, row in texts.items() if _hash_fraction(key) < test_fraction}
        prefix, suffix = _unescape(prefix), _unescape(suffix)

        def frame(row: Row) -> Row:
            framed = FramedPrompt(prefix, str(row.prompt), suffix) if prefix or suffix else row.prompt
            return replace(row, prompt=framed)

        train = [frame(row) for key, row in texts.items() if key not in held_out]
        if not train:
            raise DataError(f"{prompts}: no prompts are left to train on, {len(texts)} were read and all of them are held out")
        pairs = _pairs(demonstrations, prompt_field, response_field) if demonstrations is not None else []
        pairs_kept = [frame(row) for row in pairs if _key(str(row.prompt)) not in held_out]
        self._train = train[:limit]
        self._test = [frame(row) for row in held_out.values()][:limit]
        self._demonstrations = pairs_kept[:limit]

    def train_prompts(self) -> list[TaskPrompt]:
        """Return the training prompts, in the file's order."""
        return list(self._train)

    def test_prompts(self) -> list[TaskPrompt]:
        """Return the held-out prompts, in the file's order; possibly empty."""
        return list(self._test)

    def demonstrations(self) -> list[Demonstration]:
        """Return the demonstrations, in the file's order."""
        return list(self._demonstrations)

    def utility(self, prompt: Prompt, response: str) -> float:
        """Raise ConfigError: there is no utility."""
        _unknown("utility")

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        """Raise ConfigError: there are no edits."""
        _unknown("edits")


def _unescape(text: str) -> str:
    """Replace \\n and \\t by a line break and a tab: quotes on a command line keep the two characters."""
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match[1]], text)


def _unknown(kind: str) -> NoReturn:
    raise ConfigError(f"task=files knows no {kind}; bring feedback with feedback_source, or take a task that has one (task=reviews)")


def _distinct(path: str, field: str) -> dict[str, TaskPrompt]:
    """Return the file's distinct prompts by their NFC form."""
    prompts: dict[str, TaskPrompt] = {}
    for where, record in _records(path):
        _check_fields(record, {field}, CONTEXT, where)
        prompt = _text(record, field, where)
        columns = {name: value for name, value in record.items() if name != field}
        prompts.setdefault(_key(prompt), TaskPrompt(prompt, columns, where))
    if not prompts:
        raise DataError(f'{path}: no prompts in it; one JSON object per line is expected, like {{"{field}": "..."}}')
    return prompts


def _pairs(path: str, prompt_field: str, response_field: str) -> list[Demonstration]:
    pairs = []
    for where, record in _records(path):
        _check_fields(record, {prompt_field, response_field}, CONTEXT | STRENGTH, where)
        pairs.append(Demonstration(_text(record, prompt_field, where), _text(record, response_field, where), where))
    return pairs


def _check_fields(record: dict[str, object], read: set[str], fields: Mapping[str, str], where: str) -> None:
    try:
        reject_unread(record, read, fields, {}, "write it into the prompt, or take it out of the file")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _key(prompt: str) -> str:
    return unicodedata.normalize("NFC", prompt)


def _hash_fraction(key: str) -> float:
    """Hash a text to [0, 1)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def _records(path: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield (file:line, object) of each line that isn't empty."""
    for number, line in enumerate(_content(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as cause:
            raise DataError(f"{where}: not JSON in UTF-8 ({cause}); one object per line is expected") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: a JSON object is expected, not {type(record).__name__}")
        yield where, record


def _content(path: str) -> bytes:
    """Read the file's bytes, unpacking gzip."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            found_kind = "a folder" if os.path.isdir(path) else "no regular file (a FIFO, socket or device)"
            raise DataError(f"{path} is {found_kind}: give the name of a JSON Lines file")
        with open(path, "rb") as handle:
            content = handle.read()
        return _unpack(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, ValueError, zlib.error) as cause:
        raise DataError(f"{path} can't be read: {getattr(cause, 'strerror', None) or cause}") from None


def _unpack(packed: bytes) -> bytes:
    """Unpack a gzip file. Raises ValueError at the size limit, before memory is exhausted."""
    limit = max(SMALL, MAX_RATIO * len(packed))
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"the gzip file unpacks to more than {MAX_RATIO} times its size, as no file of text does: unpack it yourself")
    return content


def _text(record: dict[str, object], field: str, where: str) -> str:
    if field not in record:
        raise DataError(f"{where}: no field {field!r}{did_you_mean(field, record)}; it has: {', '.join(record) or 'none'}")
    value = record[field]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        raise DataError(
            f"{where}: field {field!r} is a chat, and task=files takes texts: write only the last user message as text, and the chat "
            r"""format around it as task.prefix="<|im_start|>user\n" task.suffix="<|im_end|>\n<|im_start|>assistant\n" """
            "(the special tokens of your model); stage=preference and stage=reward read chats"
        )
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: field {field!r} must be text that isn't blank, not {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: field {field!r} holds half of a surrogate pair, which is no text: {value!r:.80}") from None
    return value
