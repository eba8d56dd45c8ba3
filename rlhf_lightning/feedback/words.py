"""Words of texts: normalisation, n-grams, lexicon files and the detection of a language."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError, DataError, import_extra
from rlhf_lightning.feedback.standardise import PIECES
from rlhf_lightning.flow import Prompt


def normalise_text(text: str) -> str:
    """Normalise Unicode form, case and white space, so that spellings of one prompt are equal."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Split a text into casefolded words, or letters in scripts without spaces; punctuation is dropped."""
    pieces = PIECES.findall(unicodedata.normalize("NFC", text).casefold())
    return [piece for piece in pieces if piece[0] == "_" or unicodedata.category(piece[0])[0] in "LMN"]


def word_ngrams(words: Sequence[str], length: int) -> Iterator[str]:
    """Yield the n-grams of `length` words; all words as one n-gram if there are fewer."""
    for start in range(max(len(words) - length + 1, min(len(words), 1))):
        yield " ".join(words[start : start + length])


def prompt_content(prompt: Prompt) -> str:
    """Return a prompt's text, or a chat's messages joined without their roles."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)


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


def language_identifier(option: str) -> Any:
    """Langid's model with probabilities. Raises ConfigError, naming the option, without py3langid."""
    import_extra("py3langid.langid", option, "cleaning")
    return _identifier()


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_language(identifier: Any, code: str, key: str) -> None:
    """Check that langid knows a language. Raises ConfigError, naming the setting."""
    if code not in identifier.nb_classes:
        languages = sorted(set(identifier.nb_classes))
        raise ConfigError(f"{key}: langid knows no {code!r}{did_you_mean(code, languages)}; it knows {', '.join(languages)}")
