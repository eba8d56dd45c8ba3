"""Lexicon files: words with their valence."""

from __future__ import annotations

import math
import os
from pathlib import Path

from rlhf_lightning.errors import DataError


def read_lexicon(path: Path, key: str) -> dict[str, float]:
    """Read words and their valence. Raises DataError naming file and line; `key` is the file's setting."""
    if not os.path.isfile(path):
        raise DataError(f"{key}: no lexicon file {path}; give a text file with one `word<tab>valence` a line")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # a byte order mark would hide the first word
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{content[: error.start].count(10) + 1}: not UTF-8 text; save the file as UTF-8") from error
    valence: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        word, _, rest = line.partition("\t")
        try:
            value = float(rest.split("\t")[0])
        except ValueError:
            value = math.nan
        if not (word.strip() and math.isfinite(value)):
            raise DataError(f"{path}:{number}: expected `word<tab>valence`, got {line[:60]!r}")
        valence[word.strip().lower()] = value
    if not valence:
        raise DataError(f"{path}: no rows; expected one `word<tab>valence` a line")
    return valence
