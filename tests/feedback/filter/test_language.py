"""The language of responses."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.language import language
from rlhf_lightning.feedback.words import _identifier
from rlhf_lightning.flow import Edit, Feedback, Message, Prompt, Thumbs

ENGLISH = "The kettle boils water quickly, and it is so quiet that nobody in the next room would ever notice that it is on."
GERMAN = "Der Wasserkocher kocht das Wasser schnell, und er ist so leise, dass niemand im Zimmer nebenan ihn jemals bemerken würde."
FRENCH = "La bouilloire fait bouillir l'eau rapidement, et elle est si silencieuse que personne dans la pièce voisine ne l'entend."


def one(prompt: Prompt, response: str) -> Feedback:
    return Feedback(prompt=prompt, responses=(response,), judgement=Thumbs(up=True))


def test_allowed_languages(cleaned) -> None:
    records = [one(ENGLISH, ENGLISH), one(ENGLISH, GERMAN), one(ENGLISH, FRENCH), one(ENGLISH, "Nein.")]
    kept, cleaning = cleaned(partial(language, allowed=("en", "de")), records)
    assert kept == [records[0], records[1], records[3]]
    assert cleaning.removed == {"response in the language fr": 1}


def test_the_prompt_s_language_where_none_is_allowed(cleaned) -> None:
    chat = (Message(role="user", content=GERMAN),)
    good = [one(chat, GERMAN), one("Kurz?", ENGLISH), one("", FRENCH), one(GERMAN, "42")]
    kept, cleaning = cleaned(language, [*good, one(chat, ENGLISH)])
    assert kept == good
    assert cleaning.removed == {"response in the language en": 1}


def test_each_response_counts_and_bounds_hold(cleaned) -> None:
    edit = Feedback(prompt="", responses=(ENGLISH, GERMAN), judgement=Edit())
    assert cleaned(partial(language, allowed=("en",)), [edit])[0] == []
    assert cleaned(partial(language, allowed=("en",), min_characters=len(GERMAN) + 1), [edit])[0] == [edit]
    assert cleaned(partial(language, allowed=("en",), min_confidence=1.0), [edit])[0] == [edit]


def test_unknown_codes_and_a_missing_library_are_reported(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"feedback_filter.language.allowed: langid knows no 'english'"):
        list(language([], Cleaning(), allowed=("english",)))
    _identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[cleaning\]'"):
        list(language([], Cleaning()))
