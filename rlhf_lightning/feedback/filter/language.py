"""Leaves out responses in another language than was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.words import said
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "language")
def language(
    feedback: Iterable[Feedback],
    done: Cleaning,
    *,
    allowed: tuple[str, ...] = (),
    min_characters: NonNegativeInt = 80,
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.8,
) -> Iterator[Feedback]:
    """Removes records with a response in a language that isn't allowed, as langid tells it (Lui and Baldwin 2012; py3langid).

    Texts that are short, and texts about which langid isn't sure, pass: it errs on them, and on code. Needs
    the extra `cleaning`.

    Args:
        allowed: ISO 639 codes ("en"); none given: the prompt's own (all pass where that can't be told). Translations need them given.
        min_characters: shorter texts pass.
        min_confidence: the least probability of the language that langid names, 0 to 1, for a text not to pass.
    """
    identifier = _identifier()
    for code in allowed:
        if code not in identifier.nb_classes:
            known = sorted(set(identifier.nb_classes))
            suggest_name = did_you_mean(code, known)
            raise ConfigError(f"feedback_filter.language.allowed: langid knows no {code!r}{suggest_name}; it knows {', '.join(known)}")

    def told(text: str) -> str | None:
        if len(text) < min_characters:
            return None
        code, confidence = identifier.classify(text)
        return str(code) if confidence >= min_confidence else None

    for record in feedback:
        wanted = allowed or (told(said(record.prompt)),)
        found = [told(text) for text in record.responses] if wanted != (None,) else []
        strange = next((code for code in found if code is not None and code not in wanted), None)
        if strange is None:
            yield record
        else:
            done.remove(record, f"response in the language {strange}")


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ConfigError("feedback_filter=language needs py3langid: pip install 'rlhf-lightning[cleaning]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
