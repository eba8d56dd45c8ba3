"""Responses in an unwanted language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, NonNegativeInt

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.words import check_language, language_identifier, prompt_content
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "language")
def language(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    allowed: tuple[str, ...] = (),
    min_characters: NonNegativeInt = 80,
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.8,
) -> Iterator[Feedback]:
    """Remove records with a response in a language that isn't allowed, detected by langid.

    Lui and Baldwin 2012; py3langid. Short texts and uncertain ones pass: langid errs on them, and on code. Needs the extra
    `cleaning`.

    Args:
        allowed: ISO 639 codes ("en"); by default the prompt's language (all pass if it is uncertain). Set it for translations.
        min_characters: shorter texts pass.
        min_confidence: texts with a lower probability of the detected language, 0 to 1, pass.
    """
    identifier = language_identifier("feedback_filter=language")
    for code in allowed:
        check_language(identifier, code, "feedback_filter.language.allowed")

    def detect(text: str) -> str | None:
        if len(text) < min_characters:
            return None
        code, confidence = identifier.classify(text)
        return str(code) if confidence >= min_confidence else None

    for record in feedback:
        accepted = allowed or (detect(prompt_content(record.prompt)),)
        detected = [detect(text) for text in record.responses] if accepted != (None,) else []
        foreign = next((code for code in detected if code is not None and code not in accepted), None)
        if foreign is None:
            yield record
        else:
            cleaning.remove(record, f"response in the language {foreign}")
