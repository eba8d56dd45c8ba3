"""Detection of a text's language by langid."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError, import_extra


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
