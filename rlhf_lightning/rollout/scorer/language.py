"""Responses in the wanted language."""

from __future__ import annotations

from pydantic import NonNegativeInt

from rlhf_lightning.feedback.words import check_language, language_identifier
from rlhf_lightning.flow import Prompt, Rollout, prompt_text
from rlhf_lightning.registry import register


@register("rollout_scorer", "language")
class LanguageScorer:
    """The probability that a response is in the wanted language, 0 to 1, by langid.

    Lui and Baldwin 2012, 97 languages; py3langid (BSD licence, 1 MB, works offline). Needs the extra `cleaning`.

    Args:
        language: its ISO 639 code, as "en"; null takes the language of each prompt.
        min_characters: shorter responses have no score: langid errs on them.

    Raises:
        ConfigError: no such language, or py3langid isn't installed.
    """

    def __init__(self, *, language: str | None = "en", min_characters: NonNegativeInt = 20) -> None:
        self.language, self.min_characters = language, min_characters
        self.identifier = language_identifier("rollout_scorer=language")
        if language is not None:
            check_language(self.identifier, language, "rollout_scorer.language.language")

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]; None for a short response, or a short prompt whose language is wanted."""
        wanted = [self.language or self._language_of(prompt) for prompt in rollout.prompts]
        return [self._probability(text, code) for text, code in zip(rollout.responses, wanted, strict=True)]

    def _language_of(self, prompt: Prompt) -> str | None:
        text = prompt_text(prompt) if isinstance(prompt, str) else " ".join(message.content for message in prompt)
        return str(self.identifier.classify(text)[0]) if len(text) >= self.min_characters else None

    def _probability(self, text: str, language: str | None) -> float | None:
        if language is None or len(text) < self.min_characters:
            return None
        return float(dict(self.identifier.rank(text))[language])
