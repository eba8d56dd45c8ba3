from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rollout.scorer.language import LanguageScorer

ENGLISH, GERMAN = "This is a sentence about the weather in the north.", "Das ist ein Satz über das Wetter im Norden des Landes."


def test_the_wanted_language_scores_high_and_a_short_text_not_at_all(scored_of):
    pytest.importorskip("py3langid")
    rollout = scored_of(torch.ones(3, 1), responses=[ENGLISH, GERMAN, "Ja"], prompts=[GERMAN, GERMAN, GERMAN])
    english, german, short = LanguageScorer()(rollout)
    assert english > 0.99
    assert german < 0.01
    assert short is None
    english, german, short = LanguageScorer(language=None)(rollout)
    assert english < 0.01
    assert german > 0.99
    assert LanguageScorer(language=None)(scored_of(torch.ones(1, 1), responses=[GERMAN])) == [None], "a short prompt has no language"


def test_an_unknown_language_is_refused():
    pytest.importorskip("py3langid")
    with pytest.raises(ConfigError, match=r"rollout_scorer\.language\.language: langid knows no 'english'"):
        LanguageScorer(language="english")
